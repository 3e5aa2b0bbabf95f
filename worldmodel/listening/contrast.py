"""The contrastive term: true actions must beat another clip's by a margin."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.dynamics.text import TextContext


class Rivals(NamedTuple):
    """Clips that are read a second time, with another clip's actions.

    Attributes:
        rows: their places in the batch.
        actions: the other actions.
        counts: whether those differ enough, and the true ones are read.
    """

    rows: Int[Tensor, " rival"]
    actions: Float[Tensor, "rival step action"]
    counts: Bool[Tensor, " rival"]


def rivals(
    scaled: Float[Tensor, "batch step action"],
    actions: Float[Tensor, "batch step action"],
    drop_actions: Bool[Tensor, " batch"] | None,
    share: float,
    distance: float,
) -> Rivals:
    """The first `share` of the batch with the actions of clips at a random shift.

    Args:
        scaled: the actions in deviations, as they are compared.
    """
    batch, device = len(actions), actions.device
    rows = torch.arange(math.ceil(share * batch), device=device)
    others = (rows + int(torch.randint(1, max(2, batch), ()))) % batch
    apart = (scaled[rows] - scaled[others]).square().mean(dim=(1, 2)).sqrt()
    counts = apart > distance
    if drop_actions is not None:
        counts = counts & ~drop_actions[rows]
    return Rivals(rows, actions[others], counts)


def with_rows(value: Any, rows: Int[Tensor, " row"]) -> Any:
    """A batch of anything, with some of its examples once more at its end."""
    every = torch.cat([torch.arange(_length(value), device=rows.device), rows])
    return value.rows(every) if isinstance(value, TextContext) else value[every]


def _length(value: Any) -> int:
    return len(value.index) if isinstance(value, TextContext) else len(value)


def contrast(
    true: Float[Tensor, " rival"],
    other: Float[Tensor, " rival"],
    counts: Bool[Tensor, " rival"],
    margin: float,
) -> Float[Tensor, ""]:
    """Mean of max(0, margin - (other - true)) over the clips that count.

    Args:
        true, other: cross entropy per token under the true and under another clip's actions.
    """
    hinge = F.relu(margin - (other - true)) * counts
    return hinge.sum() / counts.sum().clamp(min=1)
