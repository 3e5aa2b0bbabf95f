"""What an autoencoder is trained on: pixels, perception, and a discriminator's opinion."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms (VQGAN, Esser et al. 2021, section 3.2).

    Attributes:
        perceptual_net: LPIPS backbone, "alex" (fast) or "vgg"; "" turns the term off.
        gan_start: generator step at which the discriminator joins; before it, it costs nothing.
        gan_weight: factor on the adaptive weight.
        discriminator_channels: width of the PatchGAN.
        discriminator_layers: its layers of stride 2.
        discriminator_lr: learning rate of its Adam.
        discriminator_norm: "batch" (the paper's; its statistics are those of one device, or of
            all GPUs) or "group" (does not depend on how a batch is split over devices).
    """

    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    perceptual_net: str = "alex"
    lpips_weights: str | None = None
    gan_start: int = 20_000
    gan_weight: float = 0.1
    discriminator_channels: int = 64
    discriminator_layers: int = 3
    discriminator_lr: float = 1e-4
    discriminator_norm: str = "batch"


def hinge_discriminator_loss(
    real_logits: Float[Tensor, "n 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """0.5 * (E relu(1 - D(x)) + E relu(1 + D(x_hat))) (Lim and Ye 2017, eq. 9)."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def generator_loss(fake_logits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """-E D(x_hat): the generator's side of the hinge loss."""
    return -fake_logits.mean()


def adaptive_weight(
    nll_gradient: Float[Tensor, "out in k k"], adversarial_gradient: Float[Tensor, "out in k k"]
) -> Float[Tensor, ""]:
    """||grad nll|| / (||grad g|| + 1e-4) at the last layer, clamped to [0, 1e4].

    Esser et al. 2021, eq. 7: it balances the two gradients where both reach the pixels. Over
    several processes the gradients are averaged first, so that all of them use one weight, the
    one that a single process with the whole batch would use.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for gradient in (nll_gradient, adversarial_gradient):
            torch.distributed.all_reduce(gradient)
            gradient /= torch.distributed.get_world_size()
    ratio = nll_gradient.float().norm() / (adversarial_gradient.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4)
