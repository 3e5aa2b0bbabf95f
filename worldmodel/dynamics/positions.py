"""Where a slot stands: rotary angles and sinusoids over time, row and column."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.dynamics.config import Yarn, axis_pairs


class Rotation(NamedTuple):
    """What every block is told of its slots' positions.

    Attributes:
        cos, sin: of the rotary angle of every slot and pair of channels.
        added: what is added to the input of every block; None for nothing.
    """

    cos: Float[Tensor, "slot half"]
    sin: Float[Tensor, "slot half"]
    added: Float[Tensor, "slot dim"] | None = None

    def slots(self, start: int, stop: int) -> "Rotation":
        return self.at(slice(start, stop))

    def at(self, slots: slice | Tensor) -> "Rotation":
        """Of some slots, in any order."""
        added = None if self.added is None else self.added[slots]
        return Rotation(self.cos[slots], self.sin[slots], added)


def rotation(
    positions: Int[Tensor, "slot 3"], head_dim: int, theta: float, yarn: Yarn | None = None
) -> Rotation:
    """Rotary angles over (time, row, column), each axis with its own channels (arXiv 2104.09864).

    Pair i of n on an axis turns by `position * theta ** (-i / n)`.
    """
    angles = []
    for axis, num_pairs in enumerate(axis_pairs(head_dim)):
        rates = theta ** (-torch.arange(num_pairs, dtype=torch.float64) / num_pairs)
        if yarn is not None:
            rates = _slowed(rates, yarn, axis)
        angles.append(positions[:, axis, None].double() * rates)
    angle = torch.cat(angles, dim=1)
    return Rotation(angle.cos().float(), angle.sin().float())


def _slowed(rates: Float[Tensor, " pair"], yarn: Yarn, axis: int) -> Float[Tensor, " pair"]:
    """The rates of one axis (0 time, 1 row, 2 column)."""
    turn = 2 * math.pi / yarn.original[min(axis, 1)]
    low, high = turn * yarn.beta_slow, turn * yarn.beta_fast
    kept = ((rates - low) / (high - low)).clamp(0, 1)
    return rates * ((1 - kept) / yarn.scale + kept)


def sinusoid(positions: Int[Tensor, "slot 3"], dim: int) -> Float[Tensor, "slot dim"]:
    """Sines and cosines of (time, row, column), each axis with its own channels, as in Cosmos.

    The rates are those of a rotation with theta 10000. Rounded to bfloat16, because Cosmos was
    trained with it rounded so.
    """
    turn = rotation(positions, dim, 10_000.0)
    pairs = axis_pairs(dim)
    parts = zip(turn.sin.split(pairs, 1), turn.cos.split(pairs, 1), strict=True)
    return torch.cat([half for part in parts for half in part], dim=1).bfloat16().float()


def rotate(
    x: Float[Tensor, "batch head slot channel"], turn: Rotation
) -> Float[Tensor, "batch head slot channel"]:
    """Turn every channel pair (i, i + half) by its angle, computed in float32."""
    a, b = x.float().chunk(2, dim=-1)
    turned = torch.cat([a * turn.cos - b * turn.sin, a * turn.sin + b * turn.cos], dim=-1)
    return turned.type_as(x)
