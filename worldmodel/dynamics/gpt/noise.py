"""Noise on the embeddings of the context, with an optional embedding of its level."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ContextNoise(nn.Module):
    """Gaussian noise with a level per example (Valevski et al. 2024, arXiv 2408.14837, 3.2.1).

    Row 0 of the embedding means no noise and is fixed at zero, so decoding adds nothing.

    Args:
        num_levels: number of levels between 0 and 1 with an embedding; 0 for no embedding.
    """

    def __init__(self, num_levels: int, dim: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        if num_levels:
            self.level = nn.Embedding(num_levels + 1, dim, padding_idx=0)

    def draw(
        self, frames: Float[Tensor, "batch time space dim"], noise: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch time space dim"]:
        """Draw noise with these standard deviations."""
        return torch.randn_like(frames) * noise[:, None, None, None]

    def level_embedding(
        self, noise: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch 1 1 dim"] | float:
        """Added to every frame token; `noise` is in standard deviations of the embeddings."""
        if not self.num_levels:
            return 0.0
        level = (noise.clamp(max=1) * self.num_levels).ceil().long()
        return self.level(level)[:, None, None]
