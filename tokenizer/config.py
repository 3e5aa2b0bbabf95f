"""Settings of what a tokenizer's training has beside its network; imports no torch."""

from dataclasses import dataclass

from training.ranges import at_least


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
