"""Settings of a tokenizer and a world model that are trained together; imports no torch."""

from dataclasses import dataclass

from drives.clips.config import ClipsConfig
from tokenizer.config import TokenizerModuleConfig
from tokenizer.losses.config import LossConfig
from tokenizer.networks.config import AutoencoderConfig
from training.config import AdamWConfig
from training.errors import BadInput
from training.ranges import at_least, share
from worldmodel.config import WorldModelModuleConfig
from worldmodel.dynamics.config import DynamicsConfig


@dataclass(frozen=True, kw_only=True)
class JointModuleConfig:
    """A tokenizer and a world model, and how both are trained on the same clips.

    Attributes:
        network: kind and shape of the world model.
        optimizer: of the run; it steps the world model.
        action_dropout: share of examples without actions, as of a world model alone.
        tokenizer: kind and shape of the tokenizer, an autoencoder of images.
        loss: what the tokenizer is trained on.
        tokenizer_optimizer: steps the tokenizer.
        tokenizer_frames: frames of every clip that the tokenizer learns from in a step.
        ema_decay: of the average of the tokenizer's weights, per step. It makes the tokens that the
            world model reads, in training and afterwards; 0: of the weights themselves, as
            published.
    """

    network: DynamicsConfig
    optimizer: AdamWConfig
    tokenizer: AutoencoderConfig
    loss: LossConfig
    tokenizer_optimizer: AdamWConfig
    action_dropout: float = WorldModelModuleConfig.action_dropout
    tokenizer_frames: int = 2
    ema_decay: float = TokenizerModuleConfig.ema_decay

    def __post_init__(self) -> None:
        share("model.", action_dropout=self.action_dropout)
        at_least(1, "model.", tokenizer_frames=self.tokenizer_frames)
        if type(self.tokenizer) is not AutoencoderConfig:  # MUSIK's is one without a decoder
            raise BadInput(
                f"model.tokenizer: is a {type(self.tokenizer).__name__}, and only an autoencoder "
                "of images is trained together with a world model; give one"
            )
        TokenizerModuleConfig(  # its own ranges
            network=self.tokenizer,
            loss=self.loss,
            optimizer=self.tokenizer_optimizer,
            ema_decay=self.ema_decay,
        )


@dataclass(frozen=True, kw_only=True)
class JointClipsConfig(ClipsConfig):
    """Settings of clips for both; as of any clips, in smaller batches, for clips are long."""

    batch_size: int = 8
    num_val_clips: int = 64
