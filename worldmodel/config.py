"""Settings of what a world model's training has beside its network; imports no torch."""

from dataclasses import dataclass, field

from drives.clips.config import BalanceConfig
from drives.config import DataConfig
from tokenizer.config import EncodeConfig
from training.config import AdamWConfig
from training.errors import BadInput
from training.ranges import at_least, share, within
from worldmodel.conditioning.config import RobustnessConfig, SharesConfig, TextEncoderConfig
from worldmodel.dynamics.config import DynamicsConfig


@dataclass(frozen=True, kw_only=True)
class WindowsConfig(DataConfig):
    """Settings of windows of tokens.

    Attributes:
        tokenizer: of drives: a shipped one, a run folder, or a checkpoint folder.
        context_steps: time steps of a window; the network's.
        num_val_windows: validation windows, evenly spread over the drives.
        encode: how drives are encoded on first use.
        balance: rare windows come more often; the features are action columns.
    """

    tokenizer: str = "carracing"
    context_steps: int
    batch_size: int = 8
    num_val_windows: int = 64
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, "data.", num_val_windows=self.num_val_windows)
        at_least(1, "data.", context_steps=self.context_steps)


@dataclass(frozen=True, kw_only=True)
class WorldModelModuleConfig:
    """A world model and how it is trained.

    Vocabulary, token grid and action columns come from the token store, never from here.

    Attributes:
        network: its kind and shape; model=NAME chooses it.
        optimizer: that of the run.
        sum_accumulated: gradients of accumulated batches are added up, not averaged, as in Video
            Occupancy Models; clipping then sees a larger norm.
        action_dropout: share of examples without actions (Hu et al. 2023, GAIA-1, section 4.3).
            The model then also learns the unconditioned distribution.
        conditions: further shares of examples with only some of their conditions.
        text: a frozen text encoder for captions: +text_encoder@model.text=t5 | hashed_words.
        text_cache: folder for its embeddings between runs; null: none.
        robustness: what the model reads in training is disturbed; it predicts the truth.
        coded_tokens: tokens that the model will code. The bits of its weights, spread over them,
            join the loss, and every channel learns its depth (self-compression, arXiv
            2301.13142); null: weights cost nothing.
    """

    network: DynamicsConfig
    optimizer: AdamWConfig
    sum_accumulated: bool = False
    action_dropout: float = 0.1
    conditions: SharesConfig = field(default_factory=SharesConfig)
    text: TextEncoderConfig | None = None
    text_cache: str | None = None
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    coded_tokens: int | None = None

    def __post_init__(self) -> None:
        share("model.", action_dropout=self.action_dropout)
        if self.coded_tokens is not None:
            within(1, 10**15, "model.", coded_tokens=self.coded_tokens)
        shares = self.conditions
        if self.action_dropout + shares.none + shares.actions + shares.text > 1 + 1e-6:
            raise BadInput(
                f"model.action_dropout={self.action_dropout} with {shares}: give shares that sum "
                "to 1 at most"
            )


@dataclass(frozen=True)
class RolloutMediaConfig:
    """Rollouts of fixed validation clips with fixed seeds.

    Attributes:
        every_steps: optimizer steps between pictures.
        num_clips: prompts.
        num_futures: rollouts of every prompt.
        horizon_steps: time steps of a rollout; fewer where no validation drive is long enough.
    """

    every_steps: int = 1000
    num_clips: int = 2
    num_futures: int = 2
    horizon_steps: int = 10

    def __post_init__(self) -> None:
        at_least(1, "callbacks.media.", every_steps=self.every_steps, num_clips=self.num_clips)
        at_least(1, "callbacks.media.", num_futures=self.num_futures)
        at_least(1, "callbacks.media.", horizon_steps=self.horizon_steps)
