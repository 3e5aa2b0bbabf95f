"""Trains the tokenizers that have no way back to pixels: one network with a loss of its own."""

from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from drives.clips import Clip, to_pixels
from tokenizer.load import manifest_of
from tokenizer.metrics import CodebookStats
from tokenizer.networks.config import MusikConfig, SemanticConfig
from tokenizer.networks.kinds import build_network
from tokenizer.networks.semantic import SemanticTokenizer
from training.checkpoints.folder import MANIFEST_KEY
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.optimization.averaging import average_
from training.optimization.optimizers import build_optimizer
from training.watch.gradients import FiniteGuard
from training.watch.throughput import Work


class SemanticModule(L.LightningModule):
    """A `SemanticTokenizer` or `Musik`, and an average of its weights (EMA).

    Args:
        weights: of the frozen transformer; see `SemanticTokenizer.load_weights`.
        action_names: columns of the actions; come from the data.
    """

    def __init__(
        self,
        autoencoder: SemanticConfig | MusikConfig,
        optimizer: AdamWConfig,
        ema_decay: float = 0.999,
        weights: str | None = None,
        action_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.accumulate = 1  # batches per step, done by Lightning
        self.guard = FiniteGuard()
        self.guards = (self.guard,)
        if isinstance(autoencoder, MusikConfig):
            autoencoder = replace(autoencoder, num_actions=len(action_names))
        self.config, self.optimizer_config, self.ema_decay = autoencoder, optimizer, ema_decay
        self.autoencoder = build_network(autoencoder)
        if isinstance(self.autoencoder, SemanticTokenizer):
            self.autoencoder.load_weights(weights)
        self.ema = AveragedModel(
            self.autoencoder, multi_avg_fn=self._average, use_buffers=True
        ).requires_grad_(False)
        quantizer = self.autoencoder.quantizer
        self.codebook = CodebookStats(quantizer.vocab_size, quantizer.factors)
        self.manifest: dict[str, Any] = manifest_of(autoencoder)

    def speed_up(self, compile: bool, recompute: bool) -> None:
        """Compile the layers that learn in place, and recompute their activations."""
        for layers in self.autoencoder.trained_layers:
            layers.recompute = recompute
            if compile:
                layers.compile(dynamic=False)

    def configure_model(self) -> None:
        for whole in (self.autoencoder, self.ema.module):
            shard((), whole, self.trainer)

    def configure_optimizers(self) -> Any:
        steps = self.trainer.max_steps
        optimizer, schedule = build_optimizer(self.autoencoder, self.optimizer_config, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch: Clip, batch_idx: int) -> Tensor:
        loss, logs, _ = self.autoencoder.loss(to_pixels(batch.frames), batch.actions)
        self.guard.see(loss)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log_dict({f"train/{k}": v.detach() for k, v in logs.items()})
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Ours: Lightning's refuses fused AdamW under bf16-mixed, and lets NaN pass."""
        parameters, limit = self.autoencoder.parameters(), self.optimizer_config.clip_norm
        self.log("train/grad_norm", self.guard.clip(parameters, optimizer, limit, self.global_step))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Average at once: this module's hooks at the end of a batch come after the checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.autoencoder)

    def _average(self, averages: Any, currents: Any, num_averaged: Any) -> None:
        # The step just taken is counted after `optimizer_step`.
        average_(averages, currents, self.global_step + 1, self.ema_decay)

    def on_validation_epoch_start(self) -> None:
        self.codebook.reset()

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        frames = to_pixels(batch.frames)
        average: Any = self.ema.module
        loss, logs, tokens = average.loss(frames, batch.actions)
        self.codebook.update(tokens)
        self.log("step", float(self.global_step))  # or Lightning counts from 0
        logs = {f"val/{k}": v for k, v in {"loss": loss, **logs}.items()}
        self.log_dict(logs, batch_size=len(frames), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(self.codebook.counts)
        self.log("val/codebook_usage", self.codebook.usage)
        self.log("val/codebook_reachable", self.codebook.reachable)
        self.log("val/codebook_perplexity", self.codebook.perplexity)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MANIFEST_KEY] = self.manifest

    def work(self, batch: Clip) -> Work:
        """Frames encoded, their tokens, and 3x their forward FLOPs (backward = 2 forward)."""
        clips, length = batch.frames.shape[:2]
        frames = clips * self.autoencoder.frames_used(length)
        tokens = round(frames * self.config.tokens_per_frame)
        return Work(frames, tokens, 3 * frames * self.autoencoder.flops_per_frame)
