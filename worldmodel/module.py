"""Trains a world model: teacher-forced cross entropy of the next token grid."""

import math
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tokenizer.token_store import TokenSpec
from training.checkpoints import MANIFEST_KEY
from training.optimizers import AdamWConfig, build_optimizer
from training.throughput import Work
from worldmodel.data import TokenClip
from worldmodel.gpt import GPT, GPTConfig
from worldmodel.load import manifest_of


class WorldModelModule(L.LightningModule):
    """A GPT over token grids and actions.

    Args:
        spec: what the tokens mean; comes from the token store.
        action_names: columns of the actions; come from the token store.
        action_dropout: share of examples that are trained without their actions
            (Hu et al. 2023, GAIA-1, section 4.3), so that the model also knows the
            unconditioned distribution.
    """

    def __init__(
        self,
        network: GPTConfig,
        optimizer: AdamWConfig,
        spec: TokenSpec,
        action_names: tuple[str, ...],
        action_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.optimizer_config, self.action_dropout = optimizer, action_dropout
        if not action_names and network.layout.actions != "none":
            print("note: the data has no actions, so the world model is not conditioned on any")
            network = replace(network, layout=replace(network.layout, actions="none"))
        self.network = GPT(network, spec, len(action_names))
        self.manifest: dict[str, Any] = manifest_of(network, spec, action_names)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_optimizer(
            self.network, self.optimizer_config, self.trainer.max_steps
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch: TokenClip, batch_idx: int) -> Tensor:
        drop = torch.rand(len(batch.tokens), device=self.device) < self.action_dropout
        loss = self.token_losses(batch, drop).mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/bits_per_token", loss.detach() / math.log(2))
        return loss

    def token_losses(self, batch: TokenClip, drop_actions: Tensor | None = None) -> Tensor:
        """Cross entropy in nats [batch step space] of the steps that count (not the first)."""
        losses = self.network.loss(batch.tokens, batch.actions, drop_actions)
        return losses[:, self.network.config.layout.first_target_step :]

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Ours, because Lightning refuses fused AdamW with clipping under bf16-mixed."""
        norm = torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self.optimizer_config.clip_norm or float("inf")
        )
        self.log("train/grad_norm", norm)

    def on_train_batch_start(self, batch: TokenClip, batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: TokenClip, batch_idx: int) -> None:
        loss = self.token_losses(batch).mean()
        logs = {"val/loss": loss, "val/bits_per_token": loss / math.log(2)}
        self.log_dict(logs, batch_size=len(batch.tokens), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MANIFEST_KEY] = self.manifest

    def work(self, batch: TokenClip) -> Work:
        """Frames, real tokens, and FLOPs: 6N + 12 L d T per token (PaLM, appendix B)."""
        num, steps = batch.tokens.shape[:2]
        tokens = num * steps * self.network.spec.tokens_per_step
        slots = num * self.network.layout.sequence_length(steps)
        return Work(num * steps, tokens, slots * self.network.flops_per_token(steps))
