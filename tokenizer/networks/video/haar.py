"""Haar wavelets over time, height and width: fewer positions, more channels."""

import torch
from jaxtyping import Float
from torch import Tensor

AXES = (2, 3, 4)


def haar(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c8 t2 h2 w2"]:
    """One level: halves every axis; eight bands [LLL, LLH, LHL, ..., HHH] in (t, h, w) order.

    Low is (a + b) / 2 and high (a - b) / 2 of neighbours: the orthonormal transform divided by
    2 sqrt(2), so that a constant keeps its value (Cosmos tokenizer, arXiv 2501.03575, section 4).
    """
    for axis in reversed(AXES):  # the last axis is the outermost of the bands
        a, b = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([a + b, a - b], 1) / 2
    return x


def inverse_haar(x: Float[Tensor, "b c8 t2 h2 w2"]) -> Float[Tensor, "b c t h w"]:
    """Undo `haar`."""
    for axis in AXES:
        low, high = x.chunk(2, 1)
        x = torch.stack([low + high, low - high], axis + 1).flatten(axis, axis + 1)
    return x
