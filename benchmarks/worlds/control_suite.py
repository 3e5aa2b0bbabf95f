"""The DeepMind control suite from starts that no drive has; the extra `dmcontrol`."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.worlds.episode import Row
from drives.control_suite.config import TASKS, ControlSuiteConfig
from drives.control_suite.policies import GAITS
from drives.control_suite.simulator import ControlSuite
from tokenizer.load import Tokenizer
from worldmodel.proving_ground.simulated import tokens_of

FIRST_SEED = 4_100_000_000  # those of drives are smaller
WARM_UP_S = 1.0


@dataclass(frozen=True)
class Stages:
    """Bodies of one task.

    Attributes:
        fps: of the tokens; a row is held for as many frames of the drives as one of them stands
            for.
    """

    tokenizer: Tokenizer
    fps: float
    name: str

    def start(self, number: int, past: int) -> "BodyEpisode":
        return BodyEpisode(self, number, past)


class BodyEpisode:
    """A body that the scripted gait has started."""

    def __init__(self, world: Stages, number: int, past: int) -> None:
        repeat = ControlSuiteConfig.repeat
        self.body = ControlSuite(world.name, FIRST_SEED + number, repeat)
        self.gait, self.tokenizer = GAITS[world.name], world.tokenizer
        self.held = max(1, round(1 / (TASKS[world.name].step_s * repeat * world.fps)))
        self.tokens: list[torch.Tensor] = []
        self.rows: list[Row] = []
        for left in range(round(WARM_UP_S * world.fps), -1, -1):
            if left < past:
                self.look()
            if left:
                self.act(None)

    def look(self) -> None:
        frame = self.body.frame(self.tokenizer.network.config.image_size[0])
        self.tokens.append(tokens_of(frame, self.tokenizer))

    def act(self, row: Row | None) -> float:
        acts, reward = [], 0.0
        for _ in range(self.held):
            acts.append(self.gait.act(self.body.time_s) if row is None else row)
            reward += self.body.advance(acts[-1])
        self.rows.append(np.mean(acts, axis=0, dtype=np.float32))
        return reward

    def play(self, row: Row | None) -> float:
        reward = self.act(row)
        self.look()
        return reward
