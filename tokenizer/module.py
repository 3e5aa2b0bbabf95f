"""Trains an autoencoder: two optimizers, stepped by hand, neither touching the other's network."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tokenizer.data import Clip
from tokenizer.discriminator import PatchDiscriminator
from tokenizer.load import PixelConfig, manifest_of
from tokenizer.losses import (
    LossConfig,
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
)
from tokenizer.lpips_weights import PerceptualDistance, load_lpips
from tokenizer.metrics import CodebookStats, psnr, ssim
from training.averaging import average_
from training.checkpoints import MANIFEST_KEY
from training.gradients import FiniteGuard
from training.optimizers import AdamWConfig, build_optimizer
from training.sharded import shard
from training.throughput import Work


class TokenizerModule(L.LightningModule):
    """Autoencoder, discriminator, LPIPS and an average of the weights (EMA)."""

    def __init__(
        self,
        autoencoder: PixelConfig,
        loss: LossConfig,
        optimizer: AdamWConfig,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.accumulate = 1  # batches per step; by hand, because Lightning refuses to
        self.guard, self.critic_guard = FiniteGuard(), FiniteGuard()
        self.guards = (self.guard, self.critic_guard)
        self.config, self.loss, self.optimizer_config = autoencoder, loss, optimizer
        self.autoencoder = autoencoder.build()
        self.ema_decay = ema_decay
        self.ema = AveragedModel(
            self.autoencoder, multi_avg_fn=self._average, use_buffers=True
        ).requires_grad_(False)
        self.discriminator = PatchDiscriminator(
            loss.discriminator_channels, loss.discriminator_layers, loss.discriminator_norm
        )
        self.perceptual: PerceptualDistance | None = None
        if loss.perceptual_net:
            self.perceptual = load_lpips(
                loss.perceptual_net, Path(loss.lpips_weights) if loss.lpips_weights else None
            )
        self.codebook = CodebookStats(self.autoencoder.quantizer.vocab_size)
        self.manifest: dict[str, Any] = manifest_of(autoencoder)
        self.observed: dict[str, Tensor] = {}  # of the last batch, for the doctor; no copies

    def speed_up(self, compile: bool, recompute: bool) -> None:
        """Compile the two halves in place, and recompute the activations of their layers."""
        for half in (self.autoencoder.encoder, self.autoencoder.decoder):
            half.layers.recompute = recompute
            if compile:
                half.layers.compile(dynamic=False)

    def configure_model(self) -> None:
        for whole in (self.autoencoder, self.ema.module, self.discriminator):
            shard((), whole, self.trainer)

    def configure_optimizers(self) -> Any:
        steps = self.trainer.max_steps
        generator, schedule = build_optimizer(self.autoencoder, self.optimizer_config, steps)
        discriminator = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=self.loss.discriminator_lr,
            betas=(0.5, 0.9),
            fused=True,
        )
        return [generator, discriminator], [schedule]

    def training_step(self, batch: Clip, batch_idx: int) -> None:
        last = (batch_idx + 1) % self.accumulate == 0
        self.observed = {}
        frames = batch.pixels()
        joined = self.global_step >= self.loss.gan_start  # before the generator's step counts
        fake = self.generator_step(frames, last)
        if joined:
            self.discriminator_step(frames, fake, last)
        if last:
            self.ema.update_parameters(self.autoencoder)
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def generator_step(
        self, frames: Float[Tensor, "n 3 h w"], step: bool = True
    ) -> Float[Tensor, "n 3 h w"]:
        """One step of the autoencoder; returns its detached reconstruction.

        The losses see the reconstruction cut from the graph. So the discriminator's opinion costs
        one gradient of the pixels, leaves nothing in the discriminator, and the autoencoder is
        walked through once, however many losses there are.

        Args:
            step: whether the optimizer moves now, or gradients are still accumulated.
        """
        optimizer: Any = self.optimizers()[0]  # type: ignore[index]
        fake, quantized = self.autoencoder(frames)
        seen = fake.detach().float().requires_grad_()
        self.observed = {"frames": frames, "pred": seen.detach(), "indices": quantized.indices}
        nll, logs = self.reconstruction_loss(frames, seen)
        self.guard.see(nll)
        (gradient,) = torch.autograd.grad(nll, seen)
        if self.global_step >= self.loss.gan_start:
            adversarial = generator_loss(self.discriminator(seen).float())
            self.guard.see(adversarial)
            (opinion,) = torch.autograd.grad(adversarial, seen)
            last_layer = self.autoencoder.decoder.last_layer_gradient
            pulls = last_layer(gradient), last_layer(opinion)
            weight = adaptive_weight(*pulls)
            gradient = gradient + self.loss.gan_weight * weight * opinion
            pull = self.loss.gan_weight * weight * pulls[1]
            self.observed |= {"loss_pull": pulls[0], "gan_pull": pull}
            logs |= {"g_loss": adversarial, "gan_weight": weight}
        # Its gradient in the pixels is `gradient`; the quantizer's own losses join it.
        total = (fake * gradient.to(fake.dtype)).sum() + sum(quantized.losses.values())
        logs |= quantized.losses
        self.manual_backward(total / self.accumulate)
        if step:
            logs["grad_norm"] = self.guard.clip(
                self.autoencoder.parameters(),
                optimizer,
                self.optimizer_config.clip_norm,
                self.global_step,
            )
            optimizer.step()
            optimizer.zero_grad()
        self.log_dict({f"train/{k}": v.detach() for k, v in logs.items()})
        self.log("train/loss", nll.detach(), prog_bar=True)
        return fake.detach()

    def reconstruction_loss(
        self, frames: Float[Tensor, "n 3 h w"], fake: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted L1 + LPIPS, and both terms unweighted."""
        pixel = (frames - fake).abs().mean()
        logs = {"l1": pixel}
        total = self.loss.pixel_weight * pixel
        if self.perceptual is not None:
            perceptual = self.perceptual(fake, frames).mean()
            logs["lpips"] = perceptual
            total = total + self.loss.perceptual_weight * perceptual
        return total, logs

    def discriminator_step(
        self, frames: Float[Tensor, "n 3 h w"], fake: Float[Tensor, "n 3 h w"], step: bool = True
    ) -> None:
        """One step of the discriminator on real frames and a detached reconstruction."""
        # The raw optimizer: Lightning counts every wrapped step as a global step.
        optimizer: Any = self.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        real_logits, fake_logits = self.discriminator(frames), self.discriminator(fake)
        self.observed |= {"real_logits": real_logits.detach(), "fake_logits": fake_logits.detach()}
        loss = hinge_discriminator_loss(real_logits.float(), fake_logits.float())
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

    def _average(self, averages: Any, currents: Any, num_averaged: Any) -> None:
        average_(averages, currents, self.global_step, self.ema_decay)

    def on_validation_epoch_start(self) -> None:
        self.codebook.reset()

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

    def on_validation_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(self.codebook.counts)
        stats = {
            "usage": self.codebook.usage,
            "perplexity": self.codebook.perplexity,
            "entropy_bits": self.codebook.entropy_bits,
        }
        self.log_dict({f"val/codebook_{k}": v for k, v in stats.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MANIFEST_KEY] = self.manifest

    def work(self, batch: Clip) -> Work:
        """Frames, tokens, and 3x the forward FLOPs of the autoencoder (backward = 2 forward)."""
        frames = batch.frames.shape[0] * batch.frames.shape[1]
        flops = 3 * frames * self.autoencoder.flops_per_frame
        return Work(frames, round(frames * self.config.tokens_per_frame), flops)
