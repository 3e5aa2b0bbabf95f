"""Predicts binned actions, column by column."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ActionHead(nn.Module):
    """A linear head per action column; each column is predicted given the columns before it."""

    def __init__(self, num_actions: int, num_bins: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_actions, num_bins, dim))

    def forward(
        self, states: Float[Tensor, "batch step action dim"]
    ) -> Float[Tensor, "batch step action bin"]:
        """Logits of every column, from the normed hidden state before it."""
        return torch.einsum("bsad,akd->bsak", states, self.weight.to(states.dtype))

    def column(self, state: Float[Tensor, "row 1 dim"], index: int) -> Float[Tensor, "row bin"]:
        """Logits of one column."""
        return F.linear(state[:, 0], self.weight[index].to(state.dtype))

    def nll(
        self,
        states: Float[Tensor, "batch step action dim"],
        bins: Int[Tensor, "batch step action"],
        without: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the columns; examples in `without` do not count."""
        logits = self(states).permute(0, 3, 1, 2).float()
        nll = F.cross_entropy(logits, bins, reduction="none").flatten(1).mean(1)
        if without is None:
            return nll.mean()
        return nll.masked_fill(without, 0.0).sum() / (~without).sum().clamp(min=1)
