"""Trains a world model: teacher-forced cross entropy of the next token grid."""

import math
from typing import Any

import lightning as L
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.checkpoints.folder import MANIFEST_KEY
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.optimization.optimizers import build_optimizer
from training.watch.gradients import FiniteGuard
from training.watch.throughput import Work
from worldmodel.conditioning.dropout import ConditionShares
from worldmodel.conditioning.robustness import Robustness
from worldmodel.conditioning.text_encoders import TextEncoder, Texts, reading_text
from worldmodel.data import TokenClip
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import ActionRanges, DynamicsConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.load import manifest_of


class WorldModelModule(L.LightningModule):
    """A world model of any kind (`worldmodel.dynamics`).

    Args:
        spec: what the tokens mean; comes from the token store.
        action_names: columns of the actions; come from the token store.
        action_dropout: share of examples that are trained without their actions
            (Hu et al. 2023, GAIA-1, section 4.3), so that the model also knows the
            unconditioned distribution.
        conditions: shares that are trained on a part of what conditions them, besides those.
        text: a frozen text encoder (`worldmodel.conditioning.text_encoders`) that reads captions.
        text_cache: folder that keeps its embeddings between runs.
        robustness: how the past that the model reads in training is disturbed.
        captioned: whether the data has captions; comes from the token store.
        action_ranges: where bins of actions lie that the network gives no ranges; comes from the
            train drives.

    Raises:
        BadInput: text without an encoder or without captions, an encoder without slots for
            text, or a network that cannot be trained as `robustness` says.
    """

    def __init__(
        self,
        network: DynamicsConfig,
        optimizer: AdamWConfig,
        spec: TokenSpec,
        action_names: tuple[str, ...],
        action_dropout: float = 0.1,
        conditions: ConditionShares | None = None,
        text: TextEncoder | None = None,
        text_cache: str | None = None,
        robustness: Robustness | None = None,
        captioned: bool = True,
        action_ranges: ActionRanges | None = None,
    ) -> None:
        super().__init__()
        self.optimizer_config = optimizer
        self.conditions = (conditions or ConditionShares()).with_action_dropout(action_dropout)
        self.accumulate = 1  # batches per step, done by Lightning
        self.guard = FiniteGuard()
        self.guards = (self.guard,)
        unconditioned = network.without_actions()
        if not action_names and network != unconditioned:
            print("note: the data has no actions, so the world model is not conditioned on any")
            network = unconditioned
        if action_ranges is not None:
            network = network.within(action_ranges)
        self.texts: Texts | None = None
        if text is not None:
            reader = reading_text(network, text, captioned)
            self.texts, network = Texts(text, reader.text_tokens, text_cache), reader
        self.network: Dynamics = build_dynamics(network, spec, len(action_names))
        self.robustness = robustness or Robustness()
        self.robustness.check(self.network)
        self.manifest: dict[str, Any] = manifest_of(network, spec, action_names)
        if self.texts is not None:
            self.manifest["text"] = self.texts.describe()

    def speed_up(self, compile: bool, recompute: bool) -> None:
        """Compile the blocks in place, and recompute their activations."""
        self.network.recompute = recompute
        if compile:
            for block in self.network.blocks:
                block.compile(dynamic=False)

    def configure_model(self) -> None:
        shard(self.network.blocks, self.network, self.trainer)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_optimizer(
            self.network, self.optimizer_config, self.trainer.max_steps
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch: TokenClip, batch_idx: int) -> Tensor:
        no_actions, no_text = self.conditions.draw(len(batch.tokens), self.device)
        said = self.said(batch)
        if "captions" in said:
            said["captions"] = said["captions"].drop(no_text)
        tokens, actions = batch.tokens, batch.actions
        further = said | self.robustness.change(self.network, tokens, actions, no_actions, **said)
        loss = self.network.loss(tokens, actions, no_actions, **further)
        self.guard.see(loss)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/bits_per_token", loss.detach() / math.log(2))
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Ours: Lightning's refuses fused AdamW under bf16-mixed, and lets NaN pass."""
        norm = self.guard.clip(
            self.network.parameters(), optimizer, self.optimizer_config.clip_norm, self.global_step
        )
        self.log("train/grad_norm", norm)

    def on_train_batch_start(self, batch: TokenClip, batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: TokenClip, batch_idx: int) -> None:
        scores = self.network.score(batch.tokens, batch.actions, **self.said(batch))
        loss = scores.nats[:, self.network.first_target_step :].mean()
        logs = {"val/loss": loss, "val/bits_per_token": loss / math.log(2)}
        # Named, for Lightning would count from 0; sized, for it cannot tell from captions.
        self.log("step", float(self.global_step), batch_size=len(batch.tokens))
        self.log_dict(logs, batch_size=len(batch.tokens), sync_dist=True)

    def said(self, batch: TokenClip) -> dict[str, Any]:
        """The network's keyword argument `captions`, where there is any."""
        return self.texts.said(batch.text, batch.tokens.device) if self.texts else {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MANIFEST_KEY] = self.manifest

    def work(self, batch: TokenClip) -> Work:
        """Frames, real tokens, and FLOPs: of all attention, and of what its masks leave."""
        num, steps = batch.tokens.shape[:2]
        tokens = num * steps * self.network.spec.tokens_per_step
        full, causal = (self.network.flops(num, steps, causal=c) for c in (False, True))
        return Work(num * steps, tokens, full, causal)
