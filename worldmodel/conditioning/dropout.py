"""Random dropping of conditions in training."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from training.errors import BadInput


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
        shares = (self.none, self.actions, self.text)
        if min(shares) < 0 or sum(shares) > 1 + 1e-6:
            raise BadInput(
                f"conditions: none={self.none}, actions={self.actions}, text={self.text}; give "
                "shares of 0 or more that sum to 1 at most (the rest reads everything)"
            )

    def with_action_dropout(self, share: float) -> "ConditionShares":
        """A further share of examples without actions."""
        if not 0 <= share <= 1 or share + self.none + self.actions + self.text > 1 + 1e-6:
            raise BadInput(
                f"action_dropout={share} with conditions none={self.none}, "
                f"actions={self.actions}, text={self.text}; give shares that sum to 1 at most"
            )
        return replace(self, text=self.text + share)

    def draw(
        self, batch: int, device: torch.device
    ) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Examples without actions, and examples without text."""
        level = torch.rand(batch, device=device)
        no_actions = level < self.text + self.none
        no_text = (level >= self.text) & (level < self.text + self.none + self.actions)
        return no_actions, no_text
