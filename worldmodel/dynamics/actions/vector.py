"""The embedding of continuous actions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.dynamics.actions.config import ReadActionsConfig
from worldmodel.dynamics.actions.features import ActionFeatures
from worldmodel.dynamics.layout import symlog


class ActionVector(nn.Sequential):
    """An MLP that embeds every row of continuous actions.

    Args:
        step_s: seconds of a time step.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, reading: ReadActionsConfig, num_actions: int, dim: int, step_s: float
    ) -> None:
        features = ActionFeatures(reading, num_actions, step_s)
        width = num_actions + features.width
        super().__init__(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
        self.features = features
        self.standard = reading.action_scale == "standard"
        if self.standard:  # the config has them, so the state dict need not
            mean, std = reading.moments(num_actions)
            self.register_buffer("mean", torch.tensor(mean), persistent=False)
            self.register_buffer("std", torch.tensor(std), persistent=False)

    def scaled(
        self, actions: Float[Tensor, "batch step action"]
    ) -> Float[Tensor, "batch step feature"]:
        """What the first layer reads: symlog(actions) or (actions - mean) / std, and features."""
        rows = (actions - self.mean) / self.std if self.standard else symlog(actions)
        further = self.features(actions, rows)
        return torch.cat([rows, *further], dim=-1) if further else rows

    def forward(  # type: ignore[override]
        self,
        actions: Float[Tensor, "batch step action"],
        nothing: Float[Tensor, " dim"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """Embeds the scaled actions; dropped examples get `nothing`."""
        x: Tensor = super().forward(self.scaled(actions).to(nothing.dtype))
        if drop_actions is None:
            return x
        return torch.where(drop_actions[:, None, None], nothing.to(x.dtype), x)
