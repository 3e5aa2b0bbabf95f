"""Guidance: what a condition changes about a prediction is made stronger.

Logits are (1 + t) conditioned - t unconditioned (Ho and Salimans 2022, arXiv 2207.12598), with
t scheduled over the tokens of a frame and over frames (GAIA-1, arXiv 2309.17080, section 5).
"""

from jaxtyping import Float
from torch import Tensor


def guide(
    conditioned: Float[Tensor, "row token vocab"],
    other: Float[Tensor, "row token vocab"],
    scales: Float[Tensor, " token"],
) -> Float[Tensor, "row token vocab"]:
    """(1 + t) conditioned - t unconditioned logits."""
    return conditioned + scales[:, None] * (conditioned - other)
