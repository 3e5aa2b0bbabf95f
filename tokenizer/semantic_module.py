"""Trains the tokenizers that have no way back to pixels: one network with a loss of its own."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from drives.clips.data_module import Clip
from drives.clips.preprocessing import to_pixels
from tokenizer.base_module import TokenizerBase
from tokenizer.config import SemanticModuleConfig
from tokenizer.networks.base import MeaningOnly
from tokenizer.networks.config import MusikConfig, SemanticConfig
from tokenizer.networks.semantic import SemanticTokenizer
from training.config import AdamWConfig
from training.watch.throughput import Work


class SemanticModule(TokenizerBase):
    """A `SemanticTokenizer` or `Musik`, and an average of its weights (EMA).

    Args:
        weights: of the frozen transformer; see `SemanticTokenizer.load_weights`.
        action_names: columns of the actions; come from the data.
    """

    autoencoder: MeaningOnly

    def __init__(
        self,
        network: SemanticConfig | MusikConfig,
        optimizer: AdamWConfig,
        ema_decay: float = SemanticModuleConfig.ema_decay,
        weights: str | None = SemanticModuleConfig.weights,
        action_names: tuple[str, ...] = (),
    ) -> None:
        if isinstance(network, MusikConfig):
            network = replace(network, num_actions=len(action_names))
        super().__init__(network, optimizer, ema_decay)
        if isinstance(self.autoencoder, SemanticTokenizer):
            self.autoencoder.load_weights(weights)

    def training_step(self, batch: Clip, batch_idx: int) -> Tensor:
        loss, logs, _ = self.autoencoder.loss(to_pixels(batch.frames), batch.actions)
        self.guard.see(loss)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log_dict({f"train/{k}": v.detach() for k, v in logs.items()})
        return loss

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        frames = to_pixels(batch.frames)
        average: Any = self.ema.module
        loss, logs, tokens = average.loss(frames, batch.actions)
        self.codebook.update(tokens)
        self.log("step", float(self.global_step))  # or Lightning counts from 0
        logs = {f"val/{k}": v for k, v in {"loss": loss, **logs}.items()}
        self.log_dict(logs, batch_size=len(frames), sync_dist=True)

    def work(self, batch: Clip) -> Work:
        """Frames encoded, their tokens, and 3x their forward FLOPs (backward = 2 forward)."""
        clips, length = batch.frames.shape[:2]
        frames = clips * self.autoencoder.frames_used(length)
        tokens = round(frames * self.config.tokens_per_frame)
        return Work(frames, tokens, 3 * frames * self.autoencoder.flops_per_frame)
