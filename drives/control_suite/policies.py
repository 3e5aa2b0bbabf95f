"""Policies of several qualities: a scripted gait, random actions, and what lies between."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SKILLS = (1.0, 0.0, 0.75, 0.5, 0.25)  # of the episodes in turn
HELD = 4  # frames that a random action is held, without which joints hardly move


@dataclass(frozen=True)
class Gait:
    """A sine per joint: the same action at the same time, whatever the body does.

    Found by the cross-entropy method on the rewards of the first 4 s; it falls later.
    """

    amplitude: Sequence[float]
    phase_rad: Sequence[float]
    offset: Sequence[float]
    hz: float

    def act(self, time_s: float) -> Float[np.ndarray, " joint"]:
        """The action at a time, in [-1, 1]."""
        angle = 2 * math.pi * self.hz * time_s + np.array(self.phase_rad)
        wave = np.array(self.offset) + np.array(self.amplitude) * np.sin(angle)
        return np.asarray(wave.clip(-1, 1))


GAITS = {
    "cheetah_run": Gait(
        (1.75, 0.69, 1.76, -0.05, 0.99, 0.69),
        (1.24, 2.23, 1.9, -0.38, -1.51, -4.52),
        (0.46, -0.18, 0.5, -0.15, 0.12, 0.68),
        3.07,
    ),
    "walker_walk": Gait(
        (1.61, 0.89, -0.18, 0.65, 0.33, 1.22),
        (0.91, 3.68, 1.64, -1.28, -0.45, 1.01),
        (0.2, -0.19, 0.8, -0.98, 0.28, -0.15),
        2.32,
    ),
}


class SkilledPolicy:
    """The gait where `skill` is 1, random actions where it is 0, a weighted mean between."""

    def __init__(self, gait: Gait, skill: float, rng: np.random.Generator) -> None:
        self.gait, self.skill, self.rng = gait, skill, rng
        self.count, self.noise = 0, np.zeros(len(gait.amplitude))

    def act(self, time_s: float) -> Float[np.ndarray, " joint"]:
        """The action of the next frame."""
        if self.count % HELD == 0:
            self.noise = self.rng.uniform(-1, 1, len(self.noise))
        self.count += 1
        gait, noise = self.gait.act(time_s), self.noise
        return np.asarray(self.skill * gait + (1 - self.skill) * noise)
