"""Settings of the video autoencoder; imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizer.networks.config import GridConfig
from tokenizer.quantizers.config import FSQConfig, QuantizerConfig
from training.errors import BadInput
from training.ranges import at_least, one_of, within


@dataclass(frozen=True)
class VideoAutoencoderConfig(GridConfig):
    """Shape of the video autoencoder; default: the published Cosmos DV8x16x16.

    Attributes:
        image_size: (height, width) in pixels.
        quantizer: turns latents into integers; it determines the vocabulary.
        clip_frames: frames of a training clip; 1 + a multiple of `time_downsampling`.
        time_downsampling: frames per time step after the first.
        space_downsampling: pixels per token along each side.
        patch: side of the Haar patches in pixels and in frames; a power of two.
        channels: width of the first convolution.
        multipliers: width at each resolution as a multiple of `channels`.
        num_res_blocks: residual blocks per resolution (the decoder has one more).
        latent_channels: channels between encoder and quantizer, and between quantizer and decoder.
        attention_levels: resolutions with attention; the middle, at the lowest, always has it.
        attention_steps: number of past latent frames that attention sees; 0: all.
        early_upsampling: the decoder doubles time one level earlier (as in the first release).
    """

    image_size: Sequence[int] = (256, 256)
    quantizer: QuantizerConfig = field(default_factory=lambda: FSQConfig((8, 8, 8, 5, 5, 5)))
    clip_frames: int = 17
    time_downsampling: int = 8
    space_downsampling: int = 16
    patch: int = 4
    channels: int = 128
    multipliers: Sequence[int] = (2, 4, 4)
    num_res_blocks: int = 2
    latent_channels: int = 16
    attention_levels: Sequence[int] = ()
    attention_steps: int = 0
    early_upsampling: bool = False

    def __post_init__(self) -> None:
        at_least(1, **{"len(multipliers)": len(self.multipliers)})
        downsampling = [self.patch * 2**level for level in range(len(self.multipliers))]
        one_of([2**power for power in range(8)], patch=self.patch)
        one_of(downsampling, time_downsampling=self.time_downsampling)
        one_of(downsampling, space_downsampling=self.space_downsampling)
        at_least(1, channels=self.channels, multipliers=self.multipliers)
        at_least(0, num_res_blocks=self.num_res_blocks, attention_steps=self.attention_steps)
        at_least(1, latent_channels=self.latent_channels)
        within(0, len(self.multipliers) - 1, attention_levels=self.attention_levels)
        self.check_image_size("space_downsampling")
        if self.clip_frames % self.time_downsampling != 1 % self.time_downsampling:
            raise BadInput(
                f"clip_frames={self.clip_frames}: the first frame stands alone; give 1 + a "
                f"multiple of time_downsampling={self.time_downsampling}"
            )

    @property
    def downsampling(self) -> int:
        return self.space_downsampling

    @property
    def frames_per_step(self) -> int:
        return self.time_downsampling

    @property
    def tokens_per_frame(self) -> float:
        """Tokens per frame of a training clip; its first frame is a whole time step."""
        return self.steps_per_clip * math.prod(self.grid) / self.clip_frames

    @property
    def widths(self) -> list[int]:
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def steps_per_clip(self) -> int:
        return 1 + (self.clip_frames - 1) // self.time_downsampling

    def halvings(self, level: int) -> tuple[bool, bool]:
        """Whether (space, time) are halved after a level of the encoder."""
        space = self.patch * 2**level < self.space_downsampling
        return space, self.patch * 2**level < self.time_downsampling

    def doublings(self, level: int) -> tuple[bool, bool]:
        """Whether (space, time) are doubled after a level of the decoder."""
        from_below = len(self.multipliers) - 1 - level
        in_space = int(math.log2(self.space_downsampling // self.patch))
        in_time = int(math.log2(self.time_downsampling // self.patch))
        time = from_below < in_time if self.early_upsampling else 0 < from_below <= in_time
        return time or from_below < in_space > in_time, time
