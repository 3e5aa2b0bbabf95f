"""Episodes as drives: pixels, actions, rewards; row t is in force between frame t and t+1."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from drives.actions.units import REWARD
from drives.control_suite.config import ControlSuiteConfig
from drives.control_suite.policies import GAITS, SKILLS, SkilledPolicy
from drives.control_suite.simulator import ControlSuite
from drives.writing import write_drive
from training.disk.places import refuse_existing


def make_episode(
    config: ControlSuiteConfig, index: int
) -> tuple[
    UInt8[np.ndarray, "frame height width 3"], Float[np.ndarray, "frame column"], dict[str, Any]
]:
    """Simulate episode number `index`: frames, actions with the reward last, and `drive.json`.

    The reward of a row is the sum over its control steps, at most `repeat`.
    """
    skill = SKILLS[index % len(SKILLS)]
    body = ControlSuite(config.task, config.seed * 1_000_000 + index, config.repeat)
    policy = SkilledPolicy(GAITS[config.task], skill, np.random.default_rng([config.seed, index]))
    frames = np.empty((config.num_frames, config.size, config.size, 3), np.uint8)
    rows = np.empty((config.num_frames, body.num_actions + 1), np.float32)
    for row in range(config.num_frames):
        frames[row] = body.frame(config.size)
        action = policy.act(body.time_s)
        rows[row] = [*action, body.advance(action)]
    meta = {
        "fps": config.fps,
        "source": f"DeepMind control suite, {config.task}",
        "licence": "Apache-2.0 (dm_control); the frames carry no further rights",
        "split": list(config.episodes.values())[index],
        "config": asdict(config),
        "skill": skill,
        "return": float(rows[:, -1].sum()),
    }
    return frames, rows, meta


def make_episodes(root: Path, config: ControlSuiteConfig) -> Iterator[Path]:
    """Write every episode as a drive below `root`; yields each when it is there.

    Raises:
        BadInput: an episode exists, or MuJoCo is not there.
    """
    paths = [root / name for name in config.episodes]
    for path in paths:
        refuse_existing("out", path)
    for index, path in enumerate(paths):
        frames, rows, meta = make_episode(config, index)
        names = [*(f"action_{joint}" for joint in range(rows.shape[1] - 1)), REWARD]
        write_drive(path, frames, rows, names, meta)
        yield path
