"""Random dropping of conditions in training."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from training.errors import BadInput
from training.ranges import share


@dataclass(frozen=True)
class ConditionShares:
    """Shares of examples that read only some of their conditions.

    Such a model decodes with any subset of the conditions, and supports guidance.
    GAIA-1 (Hu et al. 2023, arXiv 2309.17080, section 4.2): none 0.2, actions 0.4, text 0.4.

    Attributes:
        none: on neither actions nor text.
        actions: on actions alone.
        text: on text alone.
    """

    none: float = 0.0
    actions: float = 0.0
    text: float = 0.0

    def __post_init__(self) -> None:
        share("conditions.", none=self.none, actions=self.actions, text=self.text)
        if self.none + self.actions + self.text > 1 + 1e-6:
            raise BadInput(f"{self}: give shares that sum to 1 at most (the rest reads everything)")

    def with_action_dropout(self, action_dropout: float) -> "ConditionShares":
        """A further share of examples without actions."""
        share(action_dropout=action_dropout)
        if action_dropout + self.none + self.actions + self.text > 1 + 1e-6:
            raise BadInput(
                f"action_dropout={action_dropout} with {self}: give shares that sum to 1 at most"
            )
        return replace(self, text=self.text + action_dropout)

    def __str__(self) -> str:
        return f"conditions none={self.none}, actions={self.actions}, text={self.text}"

    def draw(
        self, batch: int, device: torch.device
    ) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Examples without actions, and examples without text."""
        level = torch.rand(batch, device=device)
        no_actions = level < self.text + self.none
        no_text = (level >= self.text) & (level < self.text + self.none + self.actions)
        return no_actions, no_text
