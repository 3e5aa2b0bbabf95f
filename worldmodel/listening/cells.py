"""Weights of tokens: those that change from frame to frame are those that actions move."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def cell_weights(
    tokens: Int[Tensor, "batch time height width"], extra: float, first_step: int
) -> Float[Tensor, "batch counted space"]:
    """1 + `extra` for tokens that differ from their cell in the frame before, else 1; mean 1.

    Args:
        first_step: the first time step that counts. Tokens of step 0 have no frame before.
    """
    flat = tokens.flatten(2)
    moves = F.pad((flat[:, 1:] != flat[:, :-1]).float(), (0, 0, 1, 0))
    weights = 1 + extra * moves[:, first_step:]
    return weights / weights.mean()
