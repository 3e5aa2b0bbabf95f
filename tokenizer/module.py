"""Trains an autoencoder with two manually stepped optimizers, one per network."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from drives.clips.data_module import Clip
from tokenizer.base_module import CODEBOOK, TokenizerBase
from tokenizer.config import TokenizerModuleConfig
from tokenizer.losses.adversary import Adversary
from tokenizer.losses.config import LossConfig
from tokenizer.losses.distillation import Distillation, build_teacher
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from tokenizer.losses.perceptual_features import (
    backbone_features,
    feature_distance,
    gram_distance,
    shifted,
)
from tokenizer.metrics import psnr, ssim
from tokenizer.networks.base import PixelNetwork
from tokenizer.networks.kinds import PixelConfig
from tokenizer.quantizers.base import Quantized
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.errors import BadInput
from training.watch.throughput import Work


class TokenizerModule(TokenizerBase):
    """Autoencoder, discriminator and other losses, and an EMA of the weights.

    Attributes:
        adversary: the discriminator and its losses; None where its weight is 0; so is
            `distillation`.
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
        decoder_alone: bool = TokenizerModuleConfig.decoder_alone,
    ) -> None:
        super().__init__(network, optimizer, ema_decay)
        self.automatic_optimization = False
        self.decoder_alone = decoder_alone
        for part in self.still:
            part.requires_grad_(False)
        self.loss = loss
        self.adversary = Adversary(loss) if loss.gan_weight else None
        if self.adversary is not None:
            self.discriminator, self.lecam = self.adversary.discriminator, self.adversary.lecam
            self.guards = (self.guard, self.adversary.guard)
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
        self.train()

    @property
    def still(self) -> list[nn.Module]:
        """Parts of the network that are not trained."""
        return self.autoencoder.makes_tokens if self.decoder_alone else []

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.still:
            part.eval()  # a codebook learns in training mode
        return self

    def configure_model(self) -> None:
        super().configure_model()
        if self.adversary is not None:
            shard((), self.adversary.discriminator, self.trainer)
        if self.distillation is not None:
            shard((), self.distillation, self.trainer)
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
        if self.adversary is not None:
            optimizers.append(self.adversary.optimizer())
        return optimizers, schedules

    def change_loss(self, **changes: Any) -> None:
        """Other weights or starts from the next step on, as a treatment of the doctor."""
        self.loss = replace(self.loss, **changes)
        if self.adversary is not None:
            self.adversary.settings = self.loss

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

    @property
    def gan_joined(self) -> bool:
        return self.adversary is not None and self.adversary.has_joined(self.global_step)

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
        if self.adversary is not None and self.gan_joined:
            last_layer = self.autoencoder.decoder.last_layer_gradient
            gan_grad, more = self.adversary.gradient(seen, gradient, last_layer)
            self.guard.see(more["g_loss"])
            gradient, logs = gradient + gan_grad, logs | more
        # Its gradient in the pixels is `gradient`; the terms of the features join it.
        terms = self.feature_terms(frames, quantized)
        total = (fake * gradient.to(fake.dtype)).sum() + sum(terms.values())
        self.manual_backward(total / self.accumulate)
        logs |= terms
        if step:
            logs["grad_norm"] = self.step_by_hand()
        self.log_dict({f"train/{k}": v.detach() for k, v in logs.items()})
        self.log("train/loss", nll.detach(), prog_bar=True)
        return fake.detach()

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
        assert self.adversary is not None
        logs = self.adversary.step(self, frames, fake, step)
        self.observed |= self.adversary.observed
        self.log_dict({f"train/{k}": v for k, v in logs.items()})

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
