"""Settings of encoding, and of what training has beside a network; imports no torch."""

from dataclasses import dataclass, replace

from drives.clips.config import FITS
from tokenizer.inference.config import AS_TRAINED, InferenceConfig
from training.ranges import at_least, one_of


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
        batch_size: frames per forward pass.
        num_workers: processes that decode video ahead of the model; 0: this process.
        dtype, channels_last, winograd, frames_at_once, compile: see `InferenceConfig`.
        on_gap: action at dropped frames of a recorder: "warn" and continue, or "stop".
        fit: treatment of frames with another aspect, see `judge_sizes`.
        device: torch device; null: a GPU if there is one.
    """

    every: int = 1
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
