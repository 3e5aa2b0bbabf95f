"""Actions in every block of a network: added to its input, or modulating its norms."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.actions.config import ReadActionsConfig
from worldmodel.dynamics.attention import linear


class Modulation(NamedTuple):
    """What an action does to a block; a part is [batch step dim], or None.

    Attributes:
        added: added to the input of the block.
        attention, mlp: shift, scale and gate of these two branches.
    """

    added: Tensor | None = None
    attention: tuple[Tensor, ...] = ()
    mlp: tuple[Tensor, ...] = ()


UNMOVED = Modulation()


class ActionInBlock(nn.Module):
    """The way of the action into one block.

    "added": a linear map of the embedded action is added to the input of the block. "adaln": it
    shifts and scales what the branches read, and scales what they write (Peebles and Xie 2023,
    arXiv 2212.09748, section 3.2: adaLN-Zero). Gates are 1 + g, not g, and all maps start at zero:
    so training starts as without.
    """

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.Linear(dim, dim if kind == "added" else 6 * dim, bias=False)

    def forward(self, acting: Float[Tensor, "batch step dim"]) -> Modulation:
        """The modulation by embedded actions; zeros do nothing."""
        if self.kind == "added":
            return Modulation(added=linear(self.project, acting))
        parts = linear(self.project, F.silu(acting)).chunk(6, dim=-1)
        return Modulation(attention=parts[:3], mlp=parts[3:])


def in_block(reading: ReadActionsConfig, dim: int) -> ActionInBlock | None:
    """The module of one block; None where actions are read in the input alone."""
    return ActionInBlock(reading.action_input, dim) if reading.acts_in_blocks else None


def start_std(name: str, reading: ReadActionsConfig, plain: float) -> float:
    """Standard deviation at the start: 0 for the maps of "adaln", else the `plain` one."""
    return 0.0 if reading.action_input == "adaln" and "acting.project" in name else plain


def entered(
    x: Float[Tensor, "row position dim"], by: Modulation
) -> Float[Tensor, "row position dim"]:
    """The input of a block."""
    if by.added is None:
        return x
    grouped, added = _aligned(x, by.added)
    return (grouped + added).flatten(0, 1)


def read(
    x: Float[Tensor, "row position dim"], branch: tuple[Tensor, ...]
) -> Float[Tensor, "row position dim"]:
    """What a branch reads, from what its norm gives."""
    if not branch:
        return x
    grouped, shift, scale = _aligned(x, *branch[:2])
    return (grouped * (1 + scale) + shift).flatten(0, 1)


def written(
    x: Float[Tensor, "row position dim"], branch: tuple[Tensor, ...]
) -> Float[Tensor, "row position dim"]:
    """What a branch writes, from what it computes."""
    if not branch:
        return x
    grouped, gate = _aligned(x, branch[2])
    return (grouped * (1 + gate)).flatten(0, 1)


def _aligned(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """`x` as [group batch position dim], and parts that broadcast with it.

    Time steps of a part have equally many positions of `x`; the last one may miss some.
    """
    batch, steps = parts[0].shape[:2]
    if 1 < steps < x.shape[1]:
        length = -(-x.shape[1] // steps)
        parts = tuple(p.repeat_interleave(length, dim=1)[:, : x.shape[1]] for p in parts)
    return x.unflatten(0, (-1, batch)), *parts


def of_frames(
    acting: Float[Tensor, "batch time dim"] | None,
) -> Float[Tensor, "frame 1 dim"] | None:
    """Embedded actions of time steps as those of single frames."""
    return None if acting is None else acting.flatten(0, 1)[:, None]


def num_in_blocks(blocks: nn.ModuleList) -> int:
    """Parameters of all blocks that are used once per time step, not once per token."""
    ways = [module for module in blocks.modules() if isinstance(module, ActionInBlock)]
    return sum(p.numel() for way in ways for p in way.parameters())
