"""Noise on the embeddings of a context, whose level a network may be told."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ContextNoise(nn.Module):
    """Gaussian noise of a level per example (Valevski et al. 2024, arXiv 2408.14837, 3.2.1).

    Row 0 of the levels' embedding, "no noise", is 0 and stays it, so that decoding, which knows
    no noise, adds nothing.

    Args:
        num_levels: levels between 0 and 1 told apart; 0 tells nothing.
    """

    def __init__(self, num_levels: int, dim: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        if num_levels:
            self.level = nn.Embedding(num_levels + 1, dim, padding_idx=0)

    def draw(
        self, frames: Float[Tensor, "batch time space dim"], noise: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch time space dim"]:
        """Noise of these standard deviations."""
        return torch.randn_like(frames) * noise[:, None, None, None]

    def told(self, noise: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 dim"] | float:
        """What every frame token is told of a level, in standard deviations of the embeddings."""
        if not self.num_levels:
            return 0.0
        level = (noise.clamp(max=1) * self.num_levels).ceil().long()
        return self.level(level)[:, None, None]
