"""Loss terms of an autoencoder: the GAN's losses, LeCAM and the adaptive weight."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def hinge_discriminator_loss(
    real_logits: Float[Tensor, "n 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """0.5 * (E relu(1 - D(x)) + E relu(1 + D(x_hat))) (Lim and Ye 2017, eq. 9)."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def logistic_discriminator_loss(
    real_logits: Float[Tensor, "n 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, ""]:
    """0.5 * (E softplus(-D(x)) + E softplus(D(x_hat))) (Goodfellow et al. 2014, eq. 1)."""
    return 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())


def generator_loss(fake_logits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """-E D(x_hat): the generator's side of the hinge loss."""
    return -fake_logits.mean()


def non_saturating_loss(fake_logits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """E softplus(-D(x_hat)), with one logit per image: the mean of its patches (Open-MAGVIT2)."""
    return F.softplus(-fake_logits.mean((1, 2, 3))).mean()


GENERATOR_LOSSES = {"hinge": generator_loss, "non_saturating": non_saturating_loss}
DISCRIMINATOR_LOSSES = {
    "hinge": hinge_discriminator_loss,
    "logistic": logistic_discriminator_loss,
}


class LeCam(nn.Module):
    """Penalty on logits that leave the running mean of the other side (Tseng et al. 2021).

    E relu(D(x) - mean_fake)^2 + E relu(mean_real - D(x_hat))^2 (arXiv 2104.03310, eq. 4 and 6).
    The running means start at 0, include the current batch, and are shared by all processes.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(
        self, real_logits: Float[Tensor, "n 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]
    ) -> Float[Tensor, ""]:
        self._follow(torch.stack([real_logits.mean(), fake_logits.mean()]).detach())
        above = F.relu(real_logits - self.fake).square().mean()
        below = F.relu(self.real - fake_logits).square().mean()
        return above + below

    def _follow(self, means: Float[Tensor, "2"]) -> None:
        _average_over_processes(means)
        for running, mean in zip((self.real, self.fake), means, strict=True):
            # A refused (non-finite) step must not enter the means either.
            moved = torch.lerp(mean, running, self.decay)
            running.copy_(torch.where(mean.isfinite(), moved, running))


def adaptive_weight(
    nll_gradient: Float[Tensor, "out in k k"], adversarial_gradient: Float[Tensor, "out in k k"]
) -> Float[Tensor, ""]:
    """||grad nll|| / (||grad g|| + 1e-4) at the last layer, clamped to [0, 1e4].

    Esser et al. 2021, eq. 7: balances the two gradients at the layer that outputs pixels. Over
    several processes the gradients are averaged first, so that all use the weight of a single
    process with the whole batch.
    """
    _average_over_processes(nll_gradient)
    _average_over_processes(adversarial_gradient)
    ratio = nll_gradient.float().norm() / (adversarial_gradient.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4)


def _average_over_processes(values: Tensor) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
