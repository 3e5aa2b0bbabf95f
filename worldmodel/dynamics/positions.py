"""Position encodings: rotary angles and sinusoids over time, row and column."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.dynamics.config import Yarn, axis_pairs


class Rope(NamedTuple):
    """Position encoding of a sequence, read by every block.

    Attributes:
        cos, sin: of the rotary angle, per position and channel pair.
        added: added to the input of every block; None adds nothing.
    """

    cos: Float[Tensor, "position half"]
    sin: Float[Tensor, "position half"]
    added: Float[Tensor, "position dim"] | None = None

    def at(self, positions: slice | Tensor) -> "Rope":
        """The encoding of some positions, in any order."""
        added = None if self.added is None else self.added[positions]
        return Rope(self.cos[positions], self.sin[positions], added)


def make_rope(
    coordinates: Int[Tensor, "position 3"], head_dim: int, theta: float, yarn: Yarn | None = None
) -> Rope:
    """Rotary angles over (time, row, column); each axis has its own channels (arXiv 2104.09864).

    Pair i of n on an axis turns by `coordinate * theta ** (-i / n)`.
    """
    angles = []
    for axis, num_pairs in enumerate(axis_pairs(head_dim)):
        rates = theta ** (-torch.arange(num_pairs, dtype=torch.float64) / num_pairs)
        if yarn is not None:
            rates = _slowed(rates, yarn, axis)
        angles.append(coordinates[:, axis, None].double() * rates)
    angle = torch.cat(angles, dim=1)
    return Rope(angle.cos().float(), angle.sin().float())


def _slowed(rates: Float[Tensor, " pair"], yarn: Yarn, axis: int) -> Float[Tensor, " pair"]:
    """Slowed rates of one axis (0 time, 1 row, 2 column)."""
    full_circle = 2 * math.pi / yarn.original[min(axis, 1)]
    low, high = full_circle * yarn.beta_slow, full_circle * yarn.beta_fast
    kept = ((rates - low) / (high - low)).clamp(0, 1)
    return rates * ((1 - kept) / yarn.scale + kept)


def sinusoid(coordinates: Int[Tensor, "position 3"], dim: int) -> Float[Tensor, "position dim"]:
    """Sines and cosines of (time, row, column); each axis has its own channels, as in Cosmos.

    Rates are those of RoPE with theta 10000. Values are rounded to bfloat16, because Cosmos was
    trained with rounded values.
    """
    rope = make_rope(coordinates, dim, 10_000.0)
    pairs = axis_pairs(dim)
    parts = zip(rope.sin.split(pairs, 1), rope.cos.split(pairs, 1), strict=True)
    return torch.cat([half for part in parts for half in part], dim=1).bfloat16().float()


def apply_rope(
    x: Float[Tensor, "batch head position channel"], rope: Rope
) -> Float[Tensor, "batch head position channel"]:
    """Rotate every channel pair (i, i + half) by its angle, in float32."""
    a, b = x.float().chunk(2, dim=-1)
    rotated = torch.cat([a * rope.cos - b * rope.sin, a * rope.sin + b * rope.cos], dim=-1)
    return rotated.type_as(x)
