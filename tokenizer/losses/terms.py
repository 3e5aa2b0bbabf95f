"""What an autoencoder is trained on: pixels, perception, a discriminator's and a teacher's view."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.losses.distillation import TeacherConfig
from tokenizer.losses.lpips import BACKBONES
from training.errors import BadInput
from training.ranges import at_least

PIXEL_TERMS = ("pixel", "l2", "perceptual", "features")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms (VQGAN, Esser et al. 2021, section 3.2); a weight of 0 leaves it out.

    A quantizer's own terms (commitment, codebook, entropy) are in its config.

    Attributes:
        pixel_weight: of the mean absolute error.
        l2_weight: of the mean squared error.
        perceptual_weight: of LPIPS in training; validation reports it all the same.
        perceptual_net: backbone of LPIPS and of the two feature terms, "alex" (fast) or "vgg";
            "" turns all three off.
        features_weight: of the error of the backbone's features, without LPIPS's heads (Cosmos).
        gram_weight: of the squared error of their Gram matrices (Cosmos).
        gram_start: generator step from which on that counts.
        gan_start: generator step at which the discriminator joins; before it, it costs nothing.
        gan_weight: factor on the adaptive weight, or itself the weight; 0: no discriminator.
        gan_adaptive: weigh the discriminator's gradient against the reconstruction's.
        gan_generator: "hinge" (-E D) or "non_saturating" (E softplus of -mean D of an image).
        gan_discriminator: "hinge" or "logistic".
        lecam_weight: of LeCAM, which holds the discriminator's logits near each other.
        lecam_decay: of the running means in it.
        discriminator_channels: width of the PatchGAN.
        discriminator_layers: its layers of stride 2.
        discriminator_lr: learning rate of its Adam.
        discriminator_norm: "batch" (the paper's; its statistics are those of one device, or of
            all GPUs) or "group" (does not depend on how a batch is split over devices).
        distillation_weight: of the cosine distance of the codes to `teacher`'s features.
        teacher: the network to learn from; built only where the weight is not 0.
    """

    pixel_weight: float = 1.0
    l2_weight: float = 0.0
    perceptual_weight: float = 1.0
    perceptual_net: str = "alex"
    lpips_weights: str | None = None
    features_weight: float = 0.0
    gram_weight: float = 0.0
    gram_start: int = 0
    gan_start: int = 20_000
    gan_weight: float = 0.1
    gan_adaptive: bool = True
    gan_generator: str = "hinge"
    gan_discriminator: str = "hinge"
    lecam_weight: float = 0.0
    lecam_decay: float = 0.999
    discriminator_channels: int = 64
    discriminator_layers: int = 3
    discriminator_lr: float = 1e-4
    discriminator_norm: str = "batch"
    distillation_weight: float = 0.0
    teacher: TeacherConfig | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_weight"):
                at_least(0.0, "model.loss.", **{field.name: value})
        for name, known in (
            ("gan_generator", GENERATOR_LOSSES),
            ("gan_discriminator", DISCRIMINATOR_LOSSES),
            ("perceptual_net", {**BACKBONES, "": None}),
        ):
            if getattr(self, name) not in known:
                raise BadInput(
                    f"model.loss.{name}={getattr(self, name)!r}: choose one of "
                    f"{', '.join(repr(choice) for choice in known)}"
                )
        if (self.features_weight or self.gram_weight) and not self.perceptual_net:
            raise BadInput(
                "model.loss.features_weight and gram_weight look through the network of "
                "model.loss.perceptual_net, which is ''; choose vgg"
            )
        if not any(getattr(self, f"{name}_weight") for name in PIXEL_TERMS):
            raise BadInput(
                "model.loss: nothing compares the pixels; give one of "
                f"{', '.join(f'{name}_weight' for name in PIXEL_TERMS)} more than 0"
            )
        if self.distillation_weight and self.teacher is None:
            raise BadInput(
                f"model.loss.distillation_weight={self.distillation_weight}: names no "
                "model.loss.teacher; give one, or a weight of 0"
            )


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
    The running means start at 0, take in the batch first, and are those of all processes.
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
            # A step that is refused because it is not finite must not stay here either.
            moved = torch.lerp(mean, running, self.decay)
            running.copy_(torch.where(mean.isfinite(), moved, running))


def adaptive_weight(
    nll_gradient: Float[Tensor, "out in k k"], adversarial_gradient: Float[Tensor, "out in k k"]
) -> Float[Tensor, ""]:
    """||grad nll|| / (||grad g|| + 1e-4) at the last layer, clamped to [0, 1e4].

    Esser et al. 2021, eq. 7: it balances the two gradients where both reach the pixels. Over
    several processes the gradients are averaged first, so that all of them use one weight, the
    one that a single process with the whole batch would use.
    """
    _average_over_processes(nll_gradient)
    _average_over_processes(adversarial_gradient)
    ratio = nll_gradient.float().norm() / (adversarial_gradient.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4)


def _average_over_processes(values: Tensor) -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
