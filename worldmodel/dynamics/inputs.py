"""Inputs besides tokens that several networks share: actions and the previous frame."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.dynamics.layout import symlog


class ActionVector(nn.Sequential):
    """An MLP that embeds every row of continuous actions."""

    def __init__(self, num_actions: int, dim: int) -> None:
        super().__init__(nn.Linear(num_actions, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(  # type: ignore[override]
        self,
        actions: Float[Tensor, "batch step action"],
        nothing: Float[Tensor, " dim"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """Embeds symlog(actions); dropped examples get `nothing`."""
        x: Tensor = super().forward(symlog(actions).to(nothing.dtype))
        if drop_actions is None:
            return x
        return torch.where(drop_actions[:, None, None], nothing.to(x.dtype), x)


class LookBack(nn.Conv2d):
    """A convolution over the previous frame, `side` cells wide (odd)."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__(dim, dim, side, padding=side // 2, bias=False)
