"""The Lightning module of a tokenizer and a world model that learn from the same clips.

As in Video Occupancy Models (arXiv 2407.09533, train_pixel_vq_vae_voc.py), both losses are
minimised in every step, and tokens are integers: no gradient goes from the world model to the
tokenizer. The world model follows tokens whose meaning still moves.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from drives.clips.data_module import Clip
from tokenizer.load import KIND as TOKENIZER
from tokenizer.load import spec_of
from tokenizer.module import TokenizerModule
from training.checkpoints.parts import PARTS
from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.optimizers import build_optimizer
from training.watch.gradients import FiniteGuard
from training.watch.throughput import Work
from worldmodel.conditioning.dropout import ConditionShares
from worldmodel.conditioning.robustness import Robustness
from worldmodel.dynamics.actions.config import ActionMoments
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import ActionRanges, DynamicsConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.joint.config import JointModuleConfig
from worldmodel.load import KIND as WORLD_MODEL
from worldmodel.load import TRAINED_TOGETHER, manifest_of
from worldmodel.module import fitted_to

JOINT = "joint"


class JointModule(TokenizerModule):
    """A `TokenizerModule` that also trains a world model of any kind on its tokens.

    Its checkpoints open as a tokenizer and as a world model.

    Args:
        settings: as those of `JointModuleConfig`.
        fps: of the frames; from the data.
        action_names, action_ranges, action_moments: of the train drives; from the data.
    """

    validated = (*TokenizerModule.validated, "val/loss", "val/bits_per_token")
    shardable = False
    judged_by = "eval.py"

    def __init__(
        self,
        network: DynamicsConfig,
        optimizer: AdamWConfig,
        fps: float,
        action_names: tuple[str, ...],
        action_ranges: ActionRanges | None = None,
        action_moments: ActionMoments | None = None,
        **settings: Any,
    ) -> None:
        config = JointModuleConfig(network=network, optimizer=optimizer, **settings)
        super().__init__(
            config.tokenizer, config.loss, config.tokenizer_optimizer, config.ema_decay
        )
        self.settings = config
        network = fitted_to(network, action_names, action_ranges, action_moments)
        spec = spec_of(self.autoencoder, fps, TRAINED_TOGETHER)
        self.network: Dynamics = build_dynamics(network, spec, len(action_names))
        Robustness().check(self.network)
        self.conditions = ConditionShares().with_action_dropout(config.action_dropout)
        self.world_guard = FiniteGuard()
        self.guards = (*self.guards, self.world_guard)
        parts = {
            TOKENIZER: {**self.manifest, "weights": "ema.module."},
            WORLD_MODEL: {**manifest_of(network, spec, action_names), "weights": "network."},
        }
        # The names once more, where a resumed run of any kind looks for its columns.
        self.manifest = {"kind": JOINT, "action_names": list(action_names), PARTS: parts}

    @property
    def trained_layers(self) -> list[Any]:
        return [*super().trained_layers, *self.network.blocks]

    def begin_from(self, path: str) -> Mapping[str, Any]:
        raise BadInput(
            f"init_from={path}: a tokenizer and a world model that are trained together begin "
            "anew; leave it out"
        )

    @property
    def recomputing(self) -> list[Any]:
        return [*super().trained_layers, self.network]

    def configure_optimizers(self) -> Any:
        """Those of the tokenizer, then that of the world model."""
        optimizers, schedules = super().configure_optimizers()
        own = build_optimizer(self.network, self.settings.optimizer, self.trainer.max_steps)
        return [*optimizers, own[0]], [*schedules, own[1]]

    def training_step(self, batch: Clip, batch_idx: int) -> None:
        """A step of the tokenizer on some frames of each clip, then one of the world model."""
        last = (batch_idx + 1) % self.accumulate == 0
        self.learn(self.pictures(batch).pixels(), last)
        tokens, actions = self.tokens(batch), batch.actions
        dropped, _ = self.conditions.draw(len(tokens), self.device)
        loss = self.network.loss(tokens, actions, dropped)
        self.world_guard.see(loss)
        self.manual_backward(loss / self.accumulate)
        self.log("train/world_loss", loss.detach(), prog_bar=True)
        if last:
            self.step_world_model()
            self.step_schedules()

    def step_world_model(self) -> None:
        # The raw optimizer: Lightning counts every wrapped step, and the tokenizer's is counted.
        optimizer: Any = self.optimizers(use_pl_optimizer=False)[-1]  # type: ignore[index]
        limit, number = self.settings.optimizer.clip_norm, self.global_step - 1
        norm = self.world_guard.clip(self.network.parameters(), optimizer, limit, number)
        optimizer.step()
        optimizer.zero_grad()
        self.network.after_step()
        self.log("train/world_grad_norm", norm)

    def pictures(self, batch: Clip, evenly: bool = False) -> Clip:
        """`tokenizer_frames` frames of every clip, drawn by torch's generator, or evenly spaced."""
        clips, length = batch.frames.shape[:2]
        count, device = min(self.settings.tokenizer_frames, length), batch.frames.device
        if evenly:
            chosen = torch.linspace(0, length - 1, count, device=device).long().expand(clips, -1)
        else:
            chosen = torch.rand(clips, length, device=device).argsort(dim=1)[:, :count]
        of_clip = torch.arange(clips, device=device)[:, None]
        return Clip(batch.frames[of_clip, chosen], batch.actions[of_clip, chosen])

    @torch.no_grad()
    def tokens(self, batch: Clip) -> Int[Tensor, "batch time height width"]:
        """Tokens of all frames by the averaged tokenizer, in the precision of its encoding."""
        average: Any = self.ema.module
        with torch.autocast(self.device.type, enabled=False):
            tokens: Tensor = average.encode(batch.pixels())
        return rearrange(tokens, "(b t) h w -> b t h w", b=len(batch.frames))

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        super().validation_step(self.pictures(batch, evenly=True), batch_idx)
        loss = self.network.mean_nats(self.network.score(self.tokens(batch), batch.actions))
        logs = {"val/loss": loss, "val/bits_per_token": loss / math.log(2)}
        self.log_dict(logs, batch_size=len(batch.frames), sync_dist=True)

    def work(self, batch: Clip) -> Work:
        """Frames and tokens of the world model, and the FLOPs of both.

        The tokenizer counts thrice its forward pass on the frames that it learns from, and half of
        one on all, for it encodes them.
        """
        clips, length = batch.frames.shape[:2]
        learnt = super().work(self.pictures(batch, evenly=True)).flops
        encoded = clips * length * self.autoencoder.flops_per_frame / 2  # without its decoder
        of_model = self.network.flops(clips, length)
        tokens = clips * length * self.network.spec.tokens_per_step
        return Work(clips * length, tokens, learnt + encoded + of_model)
