"""Settings of encoding, and of what training has beside a network; imports no torch."""

from dataclasses import dataclass, replace

from drives.clips.config import FITS
from tokenizer.inference.config import AS_TRAINED, InferenceConfig
from tokenizer.losses.config import LossConfig
from tokenizer.networks.config import GridConfig, MusikConfig
from training.config import AdamWConfig
from training.errors import BadInput
from training.ranges import at_least, below_one, one_of


@dataclass(frozen=True, kw_only=True)
class TokenizerModuleConfig:
    """A tokenizer and how it is trained.

    Attributes:
        network: its kind and shape; model=NAME chooses it.
        loss: what it is trained on.
        optimizer: that of the run.
        ema_decay: of the average of the weights, per step, which validation and encoding use.
        decoder_alone: encoder and codebook stay those of `init_from`, and so do the tokens: stores,
            world models and video decoders of that tokenizer read this one's.
    """

    network: GridConfig
    loss: LossConfig
    optimizer: AdamWConfig
    ema_decay: float = 0.999
    decoder_alone: bool = False

    def __post_init__(self) -> None:
        below_one("model.", ema_decay=self.ema_decay)
        if self.decoder_alone and self.loss.distillation_weight:
            raise BadInput(
                "model.decoder_alone=true: the decoder learns nothing from a teacher of the codes; "
                "give model.loss.distillation_weight=0"
            )
        side = min(self.network.image_size)
        if self.loss.perceptual_shift >= side:
            raise BadInput(
                f"model.loss.perceptual_shift={self.loss.perceptual_shift}: frames are mirrored at "
                f"their edges, and have {side} pixels on a side; give the stride of the backbone "
                "less one (alex: 3)"
            )


@dataclass(frozen=True, kw_only=True)
class SemanticModuleConfig:
    """A tokenizer without a way back to pixels, and how it is trained.

    Attributes:
        network: its kind and shape; model=NAME chooses it.
        optimizer: that of the run.
        ema_decay: of the average of the weights, per step, which validation and encoding use.
        weights: of a frozen transformer: FILE (.safetensors, .pth), timm:NAME, or random (the
            floor); null for MUSIK, which has none.
    """

    network: GridConfig
    optimizer: AdamWConfig
    ema_decay: float = TokenizerModuleConfig.ema_decay
    weights: str | None = None

    def __post_init__(self) -> None:
        below_one("model.", ema_decay=self.ema_decay)
        if self.weights is not None and isinstance(self.network, MusikConfig):
            raise BadInput(
                f"model.weights={self.weights}: MUSIK has no frozen transformer; leave it out"
            )


@dataclass(frozen=True)
class FrameMediaConfig:
    """Pictures of fixed validation frames.

    Attributes:
        every_steps: optimizer steps between pictures.
        num_frames: frames side by side.
    """

    every_steps: int = 500
    num_frames: int = 8

    def __post_init__(self) -> None:
        at_least(1, "callbacks.media.", every_steps=self.every_steps, num_frames=self.num_frames)


@dataclass(frozen=True)
class EncodeConfig:
    """Settings of encoding.

    Attributes:
        every: keep every N-th frame; actions are averaged over the dropped frames.
        phases: with `every`, "all" makes N drives of a train drive, which begin at its frames 0 to
            N-1, so that each frame is kept once; "first" keeps those from frame 0 on alone.
        mirrored: encode each train drive mirrored as well; steering and yaw change their signs.
        batch_size: frames per forward pass.
        num_workers: processes that decode video ahead of the model; 0: this process.
        dtype: float32 or bfloat16; what that does to the tokens is measured and noted, as it is
            for the next four (`InferenceConfig`).
        channels_last: keep the channels of a pixel together in memory.
        winograd: compute 3x3 convolutions by Winograd's algorithm; for CPUs.
        frames_at_once: frames of a batch that are computed at once; 0: all. 1 is faster for large
            frames on CPUs.
        compile: torch.compile the network; the first batch of every size takes minutes.
        on_gap: action at dropped frames of a recorder: "warn" and continue, or "stop".
        fit: frames of another aspect: "same" refuses them, "cover" cuts their sides off.
        device: torch device; null: a GPU if there is one.
    """

    every: int = 1
    phases: str = "first"
    mirrored: bool = False
    batch_size: int = 64
    num_workers: int = 2
    dtype: str = "float32"
    channels_last: bool = False
    winograd: bool = False
    frames_at_once: int = 0
    compile: bool = False
    on_gap: str = "warn"
    fit: str = "same"
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(1, every=self.every, batch_size=self.batch_size)
        at_least(0, num_workers=self.num_workers)
        one_of(("warn", "stop"), on_gap=self.on_gap)
        one_of(("first", "all"), phases=self.phases)
        one_of(FITS, fit=self.fit)
        _ = self.inference  # judges its part

    @property
    def inference(self) -> InferenceConfig:
        return replace(
            AS_TRAINED,
            dtype=self.dtype,
            channels_last=self.channels_last,
            winograd=self.winograd,
            frames_at_once=self.frames_at_once,
            compile=self.compile,
        )
