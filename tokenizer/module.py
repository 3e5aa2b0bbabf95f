"""Trains an autoencoder with two manually stepped optimizers, one per network."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from drives.clips.data_module import Clip
from tokenizer.base_module import CODEBOOK, TokenizerBase
from tokenizer.config import TokenizerModuleConfig
from tokenizer.losses.config import LossConfig
from tokenizer.losses.distillation import Distillation, build_teacher
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from tokenizer.losses.perceptual_features import (
    backbone_features,
    feature_distance,
    gram_distance,
    shifted,
)
from tokenizer.losses.terms import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES, LeCam, adaptive_weight
from tokenizer.metrics import psnr, ssim
from tokenizer.networks.base import PixelNetwork
from tokenizer.networks.discriminator import PatchDiscriminator
from tokenizer.networks.kinds import PixelConfig
from tokenizer.quantizers.base import Quantized
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.errors import BadInput
from training.watch.gradients import FiniteGuard
from training.watch.throughput import Work


class TokenizerModule(TokenizerBase):
    """Autoencoder, discriminator and other losses, and an EMA of the weights.

    Attributes:
        discriminator: None where its weight is 0; so are `lecam` and `distillation`.
    """

    autoencoder: PixelNetwork
    validated = ("val/psnr", "val/ssim", "val/lpips", *CODEBOOK)
    find_unused_parameters = True  # the two networks are never both in one backward pass

    def __init__(
        self,
        network: PixelConfig,
        loss: LossConfig,
        optimizer: AdamWConfig,
        ema_decay: float = TokenizerModuleConfig.ema_decay,
    ) -> None:
        super().__init__(network, optimizer, ema_decay)
        self.automatic_optimization = False
        self.loss = loss
        self.critic_guard = FiniteGuard()
        self.guards = (self.guard, self.critic_guard)
        self.discriminator: PatchDiscriminator | None = None
        if loss.gan_weight:
            self.discriminator = PatchDiscriminator(
                loss.discriminator_channels, loss.discriminator_layers, loss.discriminator_norm
            )
        self.lecam = LeCam(loss.lecam_decay) if loss.gan_weight and loss.lecam_weight else None
        self.perceptual: PerceptualDistance | None = None
        if loss.perceptual_net:
            self.perceptual = load_lpips(
                loss.perceptual_net, Path(loss.lpips_weights) if loss.lpips_weights else None
            )
            self.perceptual.check_size(network.image_size)
        self.distillation: Distillation | None = None
        if loss.distillation_weight:
            assert loss.teacher is not None
            weight = loss.distillation_weight
            self.autoencoder.check_settings("model.loss.", distillation_weight=weight)
            self.distillation = Distillation(
                build_teacher(loss.teacher), self.autoencoder.quantizer.dim
            )
        self.observed: dict[str, Tensor] = {}  # of the last batch, for the doctor; no copies

    def configure_model(self) -> None:
        super().configure_model()
        for whole in (self.discriminator, self.distillation):
            if whole is not None:
                shard((), whole, self.trainer)
        codebook = self.autoencoder.quantizer
        if codebook.writes_parameters and any(
            isinstance(p, DTensor) for p in codebook.parameters()
        ):
            raise BadInput(
                "trainer=fsdp: a codebook that is a parameter is in pieces, and neither k-means "
                "nor revival can write to it; use trainer=ddp, or of model.network.quantizer "
                "learn=ema, or kmeans_batches=0 and dead_below=0"
            )

    @property
    def trained(self) -> nn.Module:
        if self.distillation is None:
            return self.autoencoder
        return nn.ModuleList([self.autoencoder, self.distillation])

    def configure_optimizers(self) -> Any:
        optimizers, schedules = super().configure_optimizers()
        if self.discriminator is not None:
            optimizers.append(
                torch.optim.Adam(
                    self.discriminator.parameters(),
                    lr=self.loss.discriminator_lr,
                    betas=(0.5, 0.9),
                    fused=True,
                )
            )
        return optimizers, schedules

    def training_step(self, batch: Clip, batch_idx: int) -> None:
        last = (batch_idx + 1) % self.accumulate == 0
        self.learn(batch.pixels(), last)
        if last:
            self.step_schedules()

    def learn(self, frames: Float[Tensor, "n 3 h w"], step: bool) -> None:
        """One step of both networks; `step` is as of `generator_step`."""
        self.observed = {}
        joined = self.gan_joined  # before the generator's step counts
        fake = self.generator_step(frames, step)
        if joined:
            self.discriminator_step(frames, fake, step)
        if step:
            self.update_ema()

    def step_schedules(self) -> None:
        schedules: Any = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()

    @property
    def gan_joined(self) -> bool:
        return self.discriminator is not None and self.global_step >= self.loss.gan_start

    def generator_step(
        self, frames: Float[Tensor, "n 3 h w"], step: bool = True
    ) -> Float[Tensor, "n 3 h w"]:
        """One step of the autoencoder; returns its detached reconstruction.

        The losses read a detached reconstruction. So the discriminator's gradient needs one
        gradient of the pixels and leaves none in the discriminator, and the autoencoder has one
        backward pass for all losses.

        Args:
            step: whether the optimizer moves now, or gradients are still accumulated.
        """
        fake, quantized = self.autoencoder(frames)
        seen = fake.detach().float().requires_grad_()
        self.observed = {"frames": frames, "pred": seen.detach(), "indices": quantized.indices}
        nll, logs = self.reconstruction_loss(frames, seen)
        self.guard.see(nll)
        (gradient,) = torch.autograd.grad(nll, seen)
        if self.gan_joined:
            gan_grad, more = self.adversarial_gradient(seen, gradient)
            gradient, logs = gradient + gan_grad, logs | more
        # Its gradient in the pixels is `gradient`; the terms of the features join it.
        terms = self.feature_terms(frames, quantized)
        total = (fake * gradient.to(fake.dtype)).sum() + sum(terms.values())
        self.manual_backward(total / self.accumulate)
        logs |= terms
        if step:
            logs["grad_norm"] = self.step_generator()
        self.log_dict({f"train/{k}": v.detach() for k, v in logs.items()})
        self.log("train/loss", nll.detach(), prog_bar=True)
        return fake.detach()

    def step_generator(self) -> Tensor:
        """Clip, step, clear; returns the gradient's norm before clipping."""
        optimizer: Any = self.optimizers()
        optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
        norm = self.clip(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def adversarial_gradient(
        self, seen: Float[Tensor, "n 3 h w"], gradient: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], dict[str, Tensor]]:
        """Weighted gradient of the GAN loss in the pixels, and its logs."""
        assert self.discriminator is not None
        adversarial = GENERATOR_LOSSES[self.loss.gan_generator](self.discriminator(seen).float())
        self.guard.see(adversarial)
        (gan_grad,) = torch.autograd.grad(adversarial, seen)
        weight = torch.full_like(adversarial, self.loss.gan_weight)
        last_layer = self.autoencoder.decoder.last_layer_gradient
        loss_grad, last_gan_grad = last_layer(gradient), last_layer(gan_grad)
        if self.loss.gan_adaptive:
            weight = weight * adaptive_weight(loss_grad, last_gan_grad)
        self.observed |= {"loss_grad": loss_grad, "gan_grad": weight * last_gan_grad}
        return weight * gan_grad, {"g_loss": adversarial, "gan_weight": weight.detach()}

    def feature_terms(
        self, frames: Float[Tensor, "n 3 h w"], quantized: Quantized
    ) -> dict[str, Tensor]:
        """Weighted terms of the quantized features: the quantizer's own, and a teacher's."""
        terms = dict(quantized.losses)
        if self.distillation is not None:
            distance = self.distillation(quantized.codes, frames)
            terms["distillation"] = self.loss.distillation_weight * distance
        return terms

    def reconstruction_loss(
        self, frames: Float[Tensor, "n 3 h w"], fake: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted sum of the pixel terms, and each term unweighted."""
        loss, terms, weights = self.loss, {}, {}
        if loss.pixel_weight:
            terms["l1"], weights["l1"] = (frames - fake).abs().mean(), loss.pixel_weight
        if loss.l2_weight:
            terms["l2"], weights["l2"] = (frames - fake).square().mean(), loss.l2_weight
        if self.perceptual is not None and loss.perceptual_shift:
            frames, fake = shifted(frames, fake, loss.perceptual_shift)
        if loss.perceptual_weight and self.perceptual is not None:
            terms["lpips"] = self.perceptual(fake, frames).mean()
            weights["lpips"] = loss.perceptual_weight
        gram_joined = loss.gram_weight and self.global_step >= loss.gram_start
        if self.perceptual is not None and (loss.features_weight or gram_joined):
            with torch.no_grad():
                real = backbone_features(self.perceptual, frames)
            made = backbone_features(self.perceptual, fake)
            if loss.features_weight:
                terms["features"] = feature_distance(real, made)
                weights["features"] = loss.features_weight
            if gram_joined:
                terms["gram"], weights["gram"] = gram_distance(real, made), loss.gram_weight
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return total, terms

    def discriminator_step(
        self, frames: Float[Tensor, "n 3 h w"], fake: Float[Tensor, "n 3 h w"], step: bool = True
    ) -> None:
        """One step of the discriminator on real frames and a detached reconstruction."""
        # The raw optimizer: Lightning counts every wrapped step as a global step.
        optimizer: Any = self.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        assert self.discriminator is not None
        real_logits, fake_logits = self.discriminator(frames), self.discriminator(fake)
        self.observed |= {"real_logits": real_logits.detach(), "fake_logits": fake_logits.detach()}
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
        loss = DISCRIMINATOR_LOSSES[self.loss.gan_discriminator](real_logits, fake_logits)
        if self.lecam is not None:
            lecam = self.lecam(real_logits, fake_logits)
            loss = loss + self.loss.lecam_weight * lecam
            self.log("train/lecam", lecam.detach())
        self.critic_guard.see(loss)
        self.manual_backward(loss / self.accumulate)
        if step:
            # The generator's step has been counted already.
            number = self.global_step - 1
            self.critic_guard.clip(self.discriminator.parameters(), optimizer, 0.0, number)
            optimizer.step()
            optimizer.zero_grad()
        self.log_dict(
            {
                "train/d_loss": loss.detach(),
                "train/logits_real": real_logits.detach().mean(),
                "train/logits_fake": fake_logits.detach().mean(),
            }
        )

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        frames = batch.pixels()
        fake, quantized = self.ema.module(frames)
        fake = fake.float().clamp(-1, 1)
        self.codebook.update(quantized.indices)
        logs = {"psnr": psnr(fake, frames).mean(), "ssim": ssim(fake, frames).mean()}
        self.log("step", float(self.global_step))  # or Lightning counts from 0
        if self.perceptual is not None:
            logs["lpips"] = self.perceptual(fake, frames).mean()
        self.log_dict(
            {f"val/{k}": v for k, v in logs.items()}, batch_size=len(frames), sync_dist=True
        )

    def work(self, batch: Clip) -> Work:
        """Frames, tokens, and 3x the forward FLOPs of the autoencoder (backward = 2 forward)."""
        frames = batch.frames.shape[0] * batch.frames.shape[1]
        flops = 3 * frames * self.autoencoder.flops_per_frame
        return Work(frames, round(frames * self.config.tokens_per_frame), flops)
