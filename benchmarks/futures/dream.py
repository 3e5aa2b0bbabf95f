"""Steps of a dream per CPU second against the real CarRacing: 1, 8 and 32 dreams in a batch.

The real one is stepped for as long as a dream's step stands for (5 physics steps), and draws the
frame that a policy would see. Both give pixels.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial

import gymnasium
import numpy as np

from benchmarks import Row, cpu_seconds, interleaved
from drives.carracing.config import PHYSICS_FPS
from drives.carracing.simulator import Simulator
from worldmodel.env import ENVIRONMENT

CKPT, SIZES = "carracing", (1, 8, 32)
STEPS, REPEATS = 3, 2  # of a measurement; measurements in turns


def rows() -> Iterator[Row]:
    simulator = Simulator(0)
    dreams = {num: _dreams(num) for num in SIZES}
    every = round(PHYSICS_FPS / dreams[1].unwrapped.episodes.world.fps)
    contestants: dict[str, Callable[[], float]] = {
        "real": partial(cpu_seconds, partial(_drive, simulator, every)),
        **{str(num): partial(cpu_seconds, partial(_dream, env)) for num, env in dreams.items()},
    }
    best = interleaved(contestants, REPEATS)
    real = STEPS / best["real"]
    for num in SIZES:
        found = num * STEPS / best[str(num)]
        yield Row(
            f"dream of ckpt={CKPT}, {num} in a batch",
            f"{found:.1f} steps per CPU second",
            f"CarRacing {real:.1f}",
            found / real,
        )


def _dreams(num: int) -> gymnasium.vector.VectorEnv:
    cache = os.environ.get("DASHCAST_DATA", "data")
    env = gymnasium.make_vec(ENVIRONMENT, num, "vector_entry_point", ckpt=CKPT, cache=cache)
    env.reset(seed=0)
    return env


def _dream(env: gymnasium.vector.VectorEnv) -> None:
    actions = np.tile(np.float32([0.0, 0.1, 0.0]), (env.num_envs, 1))
    for _ in range(STEPS):
        env.step(actions)


def _drive(simulator: Simulator, every: int) -> None:
    for _ in range(STEPS):
        for _ in range(every):
            simulator.drive(0.0, 0.1, 0.0)
        simulator.frame(64)
