"""Where a slot stands: rotary angles and sinusoids over time, row and column."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput


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


class Yarn(NamedTuple):
    """Slower rotations for clips longer than those trained on (arXiv 2309.00071, section 3.2).

    Attributes:
        scale: by how much the slow channels are slowed down; 1 changes nothing.
        beta_fast, beta_slow: channels that turn more often than `beta_fast` over the original
            length keep their rate, those below `beta_slow` are divided by `scale`, linearly
            in between. The magnitude factor of the paper is left out, as Cosmos does.
        original: time steps and rows of the grids trained on; columns count as rows.
    """

    scale: float = 1.0
    beta_fast: float = 4.0
    beta_slow: float = 1.0
    original: tuple[int, int] = (1, 1)

    def slowed(self, rates: Float[Tensor, " pair"], axis: int) -> Float[Tensor, " pair"]:
        """The rates of one axis (0 time, 1 row, 2 column)."""
        turn = 2 * math.pi / self.original[min(axis, 1)]
        low, high = turn * self.beta_slow, turn * self.beta_fast
        kept = ((rates - low) / (high - low)).clamp(0, 1)
        return rates * ((1 - kept) / self.scale + kept)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's channel pairs turn with time, row and column: about a third each.

    Raises:
        BadInput: the head is odd or too narrow for three axes.
    """
    if head_dim % 2 or head_dim < 6:
        raise BadInput(
            f"head_dim={head_dim} does not fit rotary positions over time, row and column; "
            "choose dim / num_heads even and at least 6, or positions=learned"
        )
    third = head_dim // 6
    return head_dim // 2 - 2 * third, third, third


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
            rates = yarn.slowed(rates, axis)
        angles.append(positions[:, axis, None].double() * rates)
    angle = torch.cat(angles, dim=1)
    return Rotation(angle.cos().float(), angle.sin().float())


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
