"""Distances between features of LPIPS's backbone, as in Cosmos's tokenizer training."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tokenizer.losses.lpips import PerceptualDistance

# Agarwal et al. 2025 (arXiv 2501.03575), as in the code: one weight per stage of the backbone.
LAYER_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)


def shifted(
    frames: Float[Tensor, "n 3 h w"], other: Float[Tensor, "n 3 h w"], most: int
) -> tuple[Float[Tensor, "n 3 h2 w2"], Float[Tensor, "n 3 h2 w2"]]:
    """Both moved down and right by the same random 0 to `most` pixels; edges are mirrored.

    The numbers come from torch's generator of the CPU, which a resumed run restores.
    """
    down, right = torch.randint(most + 1, (2,)).tolist()
    first, second = (F.pad(x, (right, 0, down, 0), mode="reflect") for x in (frames, other))
    return first, second


def backbone_features(
    perceptual: PerceptualDistance, frames: Float[Tensor, "n 3 h w"]
) -> list[Float[Tensor, "n _ _ _"]]:
    """Features of RGB frames in [-1, 1] at the five stages of the backbone."""
    network = perceptual.network
    return list(network.net.forward(network.scaling_layer(frames)))


def feature_distance(
    real: list[Float[Tensor, "n _ _ _"]], fake: list[Float[Tensor, "n _ _ _"]]
) -> Float[Tensor, ""]:
    """Weighted mean absolute difference of the features."""
    terms = zip(LAYER_WEIGHTS, real, fake, strict=True)
    return torch.stack([weight * (a - b).abs().mean() for weight, a, b in terms]).sum()


def gram_distance(
    real: list[Float[Tensor, "n _ _ _"]], fake: list[Float[Tensor, "n _ _ _"]]
) -> Float[Tensor, ""]:
    """Weighted mean squared difference of the Gram matrices (Gatys et al. 2016, eq. 5)."""
    terms = zip(LAYER_WEIGHTS, real, fake, strict=True)
    return torch.stack([w * (gram(a) - gram(b)).square().mean() for w, a, b in terms]).sum()


def gram(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
    """Gram matrix: products of channels, averaged over positions."""
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[-1]
