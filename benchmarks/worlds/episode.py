"""What a planner sees of any world: episodes that a scripted policy has begun."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

Row = Float[np.ndarray, " action"]


class Episode(Protocol):
    """An episode under way.

    Attributes:
        tokens: of the frames so far, the newest last; from `past` frames on.
        rows: actions of all steps so far.
    """

    tokens: list[Int[Tensor, "rows columns"]]
    rows: list[Row]

    def play(self, row: Row | None) -> float:
        """The reward of one time step under this row of actions; None: the scripted policy's."""


class World(Protocol):
    """Episodes that no drive has; those of one number begin alike.

    Attributes:
        name: as a table says it.
        fps: time steps per second.
    """

    name: str
    fps: float

    def start(self, number: int, past: int) -> Episode:
        """Episode `number`, of which `past` frames are known."""
