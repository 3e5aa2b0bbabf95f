"""The Lightning module of a world model: teacher-forced cross entropy."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.nn.utils import parametrize

from drives.tokens.store import TokenSpec
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.errors import BadInput
from training.module import NetworkModule
from training.optimization.self_compression import learn_depths, price, weight_bits
from training.watch.throughput import Work
from worldmodel.conditioning.dropout import ConditionShares
from worldmodel.conditioning.robustness import Robustness
from worldmodel.conditioning.text_encoders import TextEncoder, Texts, reading_text
from worldmodel.config import WorldModelModuleConfig
from worldmodel.dynamics.actions.config import ActionMoments
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import ActionRanges, DynamicsConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.load import current_name, load_world_model, manifest_of
from worldmodel.windows import TokenClip


class WorldModelModule(NetworkModule):
    """A world model of any kind (`worldmodel.dynamics`).

    Args:
        spec: describes the tokens; from the token store.
        action_names: columns of the actions; from the token store.
        action_dropout, conditions, text_cache, robustness, sum_accumulated, coded_tokens: see
            `WorldModelModuleConfig`.
        text: a frozen text encoder (`worldmodel.conditioning.text_encoders`) for captions.
        captioned: whether the data has captions; from the token store.
        action_ranges, action_moments: ranges of action bins, and moments of standardised actions,
            if the network has none; from the train drives.

    Raises:
        BadInput: text without an encoder or without captions, an encoder without positions for
            text, or a network that does not support `robustness`.
    """

    validated = ("val/loss", "val/bits_per_token")

    def __init__(
        self,
        network: DynamicsConfig,
        optimizer: AdamWConfig,
        spec: TokenSpec,
        action_names: tuple[str, ...],
        action_dropout: float = WorldModelModuleConfig.action_dropout,
        conditions: ConditionShares | None = None,
        text: TextEncoder | None = None,
        text_cache: str | None = None,
        robustness: Robustness | None = None,
        captioned: bool = True,
        action_ranges: ActionRanges | None = None,
        action_moments: ActionMoments | None = None,
        sum_accumulated: bool = WorldModelModuleConfig.sum_accumulated,
        coded_tokens: int | None = WorldModelModuleConfig.coded_tokens,
    ) -> None:
        super().__init__(optimizer)
        self.sum_accumulated = sum_accumulated
        self.conditions = (conditions or ConditionShares()).with_action_dropout(action_dropout)
        network = fitted_to(network, action_names, action_ranges, action_moments)
        self.texts: Texts | None = None
        if text is not None:
            reader = reading_text(network, text, captioned)
            self.texts, network = Texts(text, reader.text_tokens, text_cache), reader
        self.network: Dynamics = build_dynamics(network, spec, len(action_names))
        self.coded_tokens = coded_tokens
        if coded_tokens is not None:
            self._compress_itself()
        self.shardable = self.network.shardable and coded_tokens is None
        self.robustness = robustness or Robustness()
        self.robustness.check(self.network)
        self.manifest = manifest_of(network, spec, action_names)
        if self.texts is not None:
            self.manifest["text"] = self.texts.describe()

    def configure_model(self) -> None:
        shard(self.network.blocks, self.network, self.trainer)

    def begin_from(self, path: str) -> Mapping[str, Any]:
        """As `TrainedModule.begin_from`; for other action columns, what reads actions is new."""
        other = load_world_model(path, "init_from")
        names = tuple(self.manifest["action_names"])
        anew = () if other.action_names == names else ("action.",)
        self.take(self.network, other.network, path, anew)
        if anew:
            print(
                f"note: init_from={path}: reads actions {list(other.action_names)}, this data has "
                f"{list(names)}; what reads them begins anew"
            )
        if not other.reads_tokens_of(self.network.spec.tokenizer):
            print(
                f"warning: init_from={path}: learned tokens of {other.spec.tokenizer[:12]}, and "
                f"these are of {self.network.spec.tokenizer[:12]}, where they mean other things"
            )
        return other.manifest

    def training_step(self, batch: TokenClip, batch_idx: int) -> Tensor:
        no_actions, no_text = self.conditions.draw(len(batch.tokens), self.device)
        texts = self.caption_kwargs(batch)
        if "captions" in texts:
            texts["captions"] = texts["captions"].drop(no_text)
        tokens, actions = batch.tokens, batch.actions
        further = texts | self.robustness.change(self.network, tokens, actions, no_actions, **texts)
        with parametrize.cached() if self.coded_tokens else nullcontext():
            loss = self.network.loss(tokens, actions, no_actions, **further)
        self.guard.see(loss)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/bits_per_token", loss.detach() / math.log(2))
        if self.coded_tokens:
            bits = weight_bits(self.network)
            self.log("train/weight_bytes", bits.detach() / 8)
            share = price(self.global_step, self.trainer.max_steps)
            loss = loss + share * math.log(2) * bits / self.coded_tokens
        return loss * self.accumulate if self.sum_accumulated else loss

    def _compress_itself(self) -> None:
        stated = f"model.coded_tokens={self.coded_tokens}"
        if self.network.state_steps:
            raise BadInput(
                f"{stated}: this kind predicts no next frame, so it codes nothing; leave it out"
            )
        if self.network.config.width_ratio != 1:
            raise BadInput(f"{stated}: with rates by width (base_dim); leave one of the two out")
        learn_depths(self.network)

    def update_ema(self) -> None:
        """Also move what the network itself averages."""
        super().update_ema()
        self.network.after_step()

    def on_train_batch_start(self, batch: TokenClip, batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: TokenClip, batch_idx: int) -> None:
        scores = self.network.score(batch.tokens, batch.actions, **self.caption_kwargs(batch))
        loss = self.network.mean_nats(scores)
        logs = {"val/loss": loss, "val/bits_per_token": loss / math.log(2)}
        # "step": Lightning would count from 0. batch_size: it cannot infer it from captions.
        self.log("step", float(self.global_step), batch_size=len(batch.tokens))
        self.log_dict(logs, batch_size=len(batch.tokens), sync_dist=True)

    def caption_kwargs(self, batch: TokenClip) -> dict[str, Any]:
        """The keyword argument `captions` of the network, if any."""
        return self.texts.caption_kwargs(batch.text, batch.tokens.device) if self.texts else {}

    def current_name(self, name: str) -> str:
        """Name in this release of an entry in the state dict of an older checkpoint."""
        own = name.removeprefix("network.")
        return name if own == name else f"network.{current_name(self.network.config, own)}"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint.get("state_dict")  # shards are loaded by their strategy
        if weights is not None:
            renamed = {self.current_name(name): value for name, value in weights.items()}
            checkpoint["state_dict"] = renamed

    def work(self, batch: TokenClip) -> Work:
        """Frames, real tokens, FLOPs with full attention, and FLOPs with masked attention."""
        num, steps = batch.tokens.shape[:2]
        tokens = num * steps * self.network.spec.tokens_per_step
        full, causal = (self.network.flops(num, steps, causal=c) for c in (False, True))
        return Work(num * steps, tokens, full, causal)


def fitted_to(
    network: DynamicsConfig,
    action_names: tuple[str, ...],
    action_ranges: ActionRanges | None = None,
    action_moments: ActionMoments | None = None,
) -> DynamicsConfig:
    """The config of a network with what the data says of its actions, if it has any."""
    unconditioned = network.without_actions()
    if not action_names and network != unconditioned:
        print("note: the data has no actions, so the world model is not conditioned on any")
        network = unconditioned
    if action_ranges is not None:
        network = network.within(action_ranges)
    if action_moments is not None:
        network = network.standardised(action_moments)
    return network.named(action_names)
