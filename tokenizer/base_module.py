"""Base of the modules that train tokenizers: network, EMA, statistics of codes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tokenizer.load import TOKENS_OF, load_tokenizer, manifest_of
from tokenizer.metrics import CodebookStats
from tokenizer.networks.base import TokenNetwork
from tokenizer.networks.kinds import NetworkConfig, build_network
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.errors import BadInput
from training.module import TrainedModule
from training.optimization.recompute import Layers

CODEBOOK = tuple(
    f"val/codebook_{name}" for name in ("usage", "reachable", "perplexity", "entropy_bits")
)


class TokenizerBase(TrainedModule):
    """A tokenizer's network and the average of its weights (EMA), which validation uses.

    Attributes:
        decoder_alone: its tokens stay those of the tokenizer that it begins from.
    """

    ema: AveragedModel
    decoder_alone = False

    def __init__(self, config: NetworkConfig, optimizer: AdamWConfig, ema_decay: float) -> None:
        super().__init__(optimizer)
        self.config, self.manifest = config, manifest_of(config)
        self.autoencoder: TokenNetwork = build_network(config)
        self.start_ema(self.autoencoder, ema_decay)
        quantizer = self.autoencoder.quantizer
        self.codebook = CodebookStats(quantizer.vocab_size, quantizer.factors)

    @property
    def trained(self) -> nn.Module:
        return self.autoencoder

    @property
    def trained_layers(self) -> list[Layers]:
        return self.autoencoder.trained_layers

    def begin_from(self, path: str) -> Mapping[str, Any]:
        """As `TrainedModule.begin_from`; a discriminator is new."""
        other = load_tokenizer(path)
        self.take(self.autoencoder, other.network, path)
        if self.decoder_alone:
            self.manifest[TOKENS_OF] = list(other.known_as)
        return other.manifest

    def begin_anew(self) -> None:
        if self.decoder_alone:
            raise BadInput(
                "model.decoder_alone=true: keeps the tokens of a trained tokenizer; give it as "
                "init_from=RUN"
            )

    def go_on(self, manifest: Mapping[str, Any]) -> None:
        if self.decoder_alone:
            self.manifest[TOKENS_OF] = manifest[TOKENS_OF]

    def configure_model(self) -> None:
        for whole in (self.autoencoder, self.ema.module):
            shard((), whole, self.trainer)

    def on_validation_epoch_start(self) -> None:
        self.codebook.reset()

    def on_validation_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(self.codebook.counts)
        for name in CODEBOOK:
            self.log(name, getattr(self.codebook, name.removeprefix("val/codebook_")))
