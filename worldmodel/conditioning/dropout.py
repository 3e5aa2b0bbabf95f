"""Random dropping of conditions in training."""

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from training.errors import BadInput
from training.ranges import share
from worldmodel.conditioning.config import SharesConfig


class ConditionShares(SharesConfig):
    """Shares of examples that read only some of their conditions; see `SharesConfig`."""

    def with_action_dropout(self, action_dropout: float) -> "ConditionShares":
        """A further share of examples without actions."""
        share(action_dropout=action_dropout)
        if action_dropout + self.none + self.actions + self.text > 1 + 1e-6:
            raise BadInput(
                f"action_dropout={action_dropout} with {self}: give shares that sum to 1 at most"
            )
        return replace(self, text=self.text + action_dropout)

    def draw(
        self, batch: int, device: torch.device
    ) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Examples without actions, and examples without text."""
        level = torch.rand(batch, device=device)
        no_actions = level < self.text + self.none
        no_text = (level >= self.text) & (level < self.text + self.none + self.actions)
        return no_actions, no_text
