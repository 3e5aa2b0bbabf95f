"""Classifier-free guidance of logits (Ho and Salimans 2022, arXiv 2207.12598).

Guided logits are (1 + t) conditioned - t unconditioned. The scale t depends on the token and on
the frame (GAIA-1, arXiv 2309.17080, section 5).
"""

from jaxtyping import Float
from torch import Tensor


def guide(
    conditioned: Float[Tensor, "row token vocab"],
    other: Float[Tensor, "row token vocab"],
    scales: Float[Tensor, " token"],
) -> Float[Tensor, "row token vocab"]:
    """Guided logits, with one scale t per token."""
    return conditioned + scales[:, None] * (conditioned - other)
