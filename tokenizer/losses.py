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


def hinge_discriminator_loss(
    real_logits: Float[Tensor, "n 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """0.5 * (E relu(1 - D(x)) + E relu(1 + D(x_hat))) (Lim and Ye 2017, eq. 9)."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def generator_loss(fake_logits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """-E D(x_hat): the generator's side of the hinge loss."""
    return -fake_logits.mean()


def adaptive_weight(
    nll: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Tensor
) -> Float[Tensor, ""]:
    """||grad nll|| / (||grad g|| + 1e-4) at the last layer, clamped to [0, 1e4], detached.

    Esser et al. 2021, eq. 7: it balances the two gradients where both reach the pixels.
    """
    (nll_grad,) = torch.autograd.grad(nll, last_layer, retain_graph=True)
    (adversarial_grad,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio = nll_grad.float().norm() / (adversarial_grad.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4).detach()
