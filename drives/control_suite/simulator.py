"""A body of the control suite: acts, earns, and is drawn on request.

MuJoCo renders without a display by EGL; software rendering takes 3 ms per frame of 64 x 64.
"""

import os
import sys
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from drives.control_suite.config import TASKS
from training.errors import BadInput

INSTALL = "pip install 'dashcast[dmcontrol]'"


def load(task: str, seed: int) -> Any:
    """The suite's environment; BadInput where the extra is missing or MuJoCo is too new."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when the suite is imported
    try:
        suite, mujoco = import_module("dm_control.suite"), import_module("mujoco")
    except ImportError as error:
        raise BadInput(
            f"--task={task}: needs the packages dm-control and mujoco<4; {INSTALL}"
        ) from (error)
    if int(mujoco.__version__.split(".")[0]) >= 4:
        raise BadInput(f"mujoco {mujoco.__version__}: dm-control does not run with it; {INSTALL}")
    domain, name, _ = TASKS[task]
    return suite.load(domain, name, task_kwargs={"random": seed})


class ControlSuite:
    """One body, at the start of an episode.

    Args:
        seed: of the start.
        repeat: control steps per `advance`.
    """

    def __init__(self, task: str, seed: int, repeat: int = 2) -> None:
        self.environment, self.repeat = load(task, seed), repeat
        self.environment.reset()
        # Shadows and smoothed edges would take five times as long on a CPU.
        quality = self.environment.physics.model.vis.quality
        quality.shadowsize, quality.offsamples = 0, 0

    @property
    def time_s(self) -> float:
        return float(self.environment.physics.time())

    @property
    def num_actions(self) -> int:
        return int(self.environment.action_spec().shape[0])

    def advance(self, action: Float[np.ndarray, " joint"]) -> float:
        """Act for `repeat` control steps; the sum of their rewards, each in [0, 1]."""
        return sum(float(self.environment.step(action).reward) for _ in range(self.repeat))

    def frame(self, size: int) -> UInt8[np.ndarray, "height width 3"]:
        """The picture of the camera that follows the body."""
        return np.array(self.environment.physics.render(size, size, camera_id=0))
