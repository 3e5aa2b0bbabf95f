"""Adversarial training of what makes frames: a discriminator, its losses and its steps."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.losses.config import AdversaryConfig
from tokenizer.losses.terms import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES, LeCam, adaptive_weight
from tokenizer.networks.discriminator import PatchDiscriminator
from training.module import TrainedModule
from training.watch.gradients import FiniteGuard

Frames = Float[Tensor, "... 3 h w"]
Pictures = Float[Tensor, "n c h w"]


class Adversary:
    """A discriminator, and how frames are trained against it.

    It is no module. The module that trains registers `discriminator` and `lecam` under these names,
    which their weights have in checkpoints, guards its steps with `guard` as well, and has
    `optimizer()` as its second one.

    Args:
        num_frames: frames that the discriminator sees at once, as channels.

    Attributes:
        settings: those in force; the doctor may change them.
        lecam: None where its weight is 0.
        observed: of the last batch: gradients of the last layer, logits; no copies.
    """

    def __init__(self, settings: AdversaryConfig, num_frames: int = 1) -> None:
        self.settings = settings
        self.discriminator = PatchDiscriminator(
            settings.discriminator_channels,
            settings.discriminator_layers,
            settings.discriminator_norm,
            3 * num_frames,
        )
        self.lecam = LeCam(settings.lecam_decay) if settings.lecam_weight else None
        self.guard = FiniteGuard()
        self.observed: dict[str, Tensor] = {}

    def has_joined(self, step: int) -> bool:
        """Whether the discriminator takes part in this optimizer step, counted from 0."""
        return step >= self.settings.gan_start

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.discriminator.parameters(),
            lr=self.settings.discriminator_lr,
            betas=(0.5, 0.9),
            fused=True,
        )

    def gradient(
        self,
        seen: Frames,
        gradient: Frames,
        last_layer: Callable[[Tensor], Tensor],
        pictures: Callable[[Tensor], Pictures] = lambda frames: frames,
    ) -> tuple[Frames, dict[str, Tensor]]:
        """Weighted gradient of the GAN loss in the generator's pixels, and its logs.

        It leaves no gradient in the discriminator.

        Args:
            seen: the pixels, cut from the generator's graph; they require a gradient.
            gradient: that of all other losses in them.
            last_layer: from a gradient of the pixels to that of the generator's last weight.
            pictures: what the discriminator is shown of frames.
        """
        logits = self.discriminator(pictures(seen)).float()
        adversarial = GENERATOR_LOSSES[self.settings.gan_generator](logits)
        (gan_grad,) = torch.autograd.grad(adversarial, seen)
        weight = torch.full_like(adversarial, self.settings.gan_weight)
        loss_grad, last_gan_grad = last_layer(gradient), last_layer(gan_grad)
        if self.settings.gan_adaptive:
            weight = weight * adaptive_weight(loss_grad, last_gan_grad)
        self.observed = {"loss_grad": loss_grad, "gan_grad": weight * last_gan_grad}
        return weight * gan_grad, {"g_loss": adversarial, "gan_weight": weight.detach()}

    def step(
        self, module: TrainedModule, real: Pictures, fake: Pictures, moves: bool = True
    ) -> dict[str, Tensor]:
        """One step of the discriminator on real and on detached fake pictures; returns its logs.

        Args:
            module: the one that trains; its generator's step has been counted already.
            moves: whether the optimizer moves now, or gradients are still accumulated.
        """
        # The raw optimizer: Lightning counts every wrapped step as a global step.
        optimizer: Any = module.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        self.observed |= {"real_logits": real_logits.detach(), "fake_logits": fake_logits.detach()}
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
        loss = DISCRIMINATOR_LOSSES[self.settings.gan_discriminator](real_logits, fake_logits)
        logs = {}
        if self.lecam is not None:
            logs["lecam"] = self.lecam(real_logits, fake_logits)
            loss = loss + self.settings.lecam_weight * logs["lecam"]
        self.guard.see(loss)
        module.manual_backward(loss / module.accumulate)
        if moves:
            number = module.global_step - 1
            self.guard.clip(self.discriminator.parameters(), optimizer, 0.0, number)
            optimizer.step()
            optimizer.zero_grad()
        logs |= {
            "d_loss": loss,
            "logits_real": real_logits.mean(),
            "logits_fake": fake_logits.mean(),
        }
        return {name: value.detach() for name, value in logs.items()}
