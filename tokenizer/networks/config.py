"""Shapes of the tokenizers' networks; no networks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizer.quantizers.config import FSQConfig, QuantizerConfig
from training.errors import BadInput
from training.ranges import at_least, multiple_of, one_of


class GridConfig(ABC):
    """Base of the configs of tokenizers whose tokens lie on a grid of `downsampling` pixels."""

    image_size: Sequence[int]

    @property
    @abstractmethod
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, height, width) tokens of a step."""
        height, width = self.image_size
        return 1, height // self.downsampling, width // self.downsampling

    @property
    def frames_per_step(self) -> int:
        """Frames of every token step but a drive's first, which holds one."""
        return 1

    @property
    def clip_frames(self) -> int:
        """Consecutive frames of a training clip."""
        return 1

    @property
    def tokens_per_frame(self) -> float:
        return float(math.prod(self.grid))

    def check_image_size(self, reason: str) -> None:
        """BadInput unless the image divides into the grid.

        Args:
            reason: what decides `downsampling`, for the message.
        """
        at_least(1, image_size=self.image_size)
        each = self.downsampling
        if len(self.image_size) != 2 or each < 1 or any(side % each for side in self.image_size):
            raise BadInput(
                f"image_size={list(self.image_size)}: give (height, width), both multiples of "
                f"{each} pixels per token ({reason})"
            )

    def check_frames(self, shape: Sequence[int]) -> None:
        """BadInput unless frames of shape [..., h, w] have the size it was made for."""
        if tuple(shape[-2:]) != tuple(self.image_size):
            raise BadInput(
                f"frames are {tuple(shape[-2:])}, this tokenizer takes "
                f"{tuple(self.image_size)} (height, width)"
            )


@dataclass(frozen=True)
class AutoencoderConfig(GridConfig):
    """Shape of the autoencoder; the token grid is image_size / downsampling.

    Attributes:
        image_size: (height, width) in pixels.
        quantizer: turns latents into integers; it decides the vocabulary.
        patch: side of the pixel patches that the first and last convolution see.
        channels: width at each resolution; each further entry halves the resolution.
        num_res_blocks: residual blocks per resolution (the decoder has one more).
        attention: spatial self-attention at the lowest resolution.
    """

    image_size: Sequence[int] = (64, 64)
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    patch: int = 2
    channels: Sequence[int] = (48, 96, 128)
    num_res_blocks: int = 1
    attention: bool = True

    def __post_init__(self) -> None:
        at_least(1, channels=self.channels, patch=self.patch)
        at_least(1, **{"len(channels)": len(self.channels)})
        at_least(0, num_res_blocks=self.num_res_blocks)
        self.check_image_size(f"patch {self.patch}, {len(self.channels)} resolutions")

    @property
    def downsampling(self) -> int:
        return int(self.patch * 2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class MusikConfig(GridConfig):
    """Shape of the encoder (as `AutoencoderConfig`) and of the energy model that trains it.

    Attributes:
        num_actions: columns of the actions; comes from the data.
        clip_frames: frames of a training clip; the second frame is 1 .. clip_frames - 1 later.
        num_negatives: false actions beside the true one, uniform over the range of those seen.
        hidden: width of the energy model.
    """

    image_size: Sequence[int] = (64, 64)
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    patch: int = 2
    channels: Sequence[int] = (48, 96, 128)
    num_res_blocks: int = 1
    attention: bool = True
    num_actions: int = 0
    clip_frames: int = 15
    num_negatives: int = 256
    hidden: int = 256

    def __post_init__(self) -> None:
        _ = self.encoder  # checks the image size
        at_least(2, clip_frames=self.clip_frames)  # two frames apart

    @property
    def encoder(self) -> AutoencoderConfig:
        return AutoencoderConfig(
            self.image_size,
            self.quantizer,
            self.patch,
            self.channels,
            self.num_res_blocks,
            self.attention,
        )

    @property
    def downsampling(self) -> int:
        return self.encoder.downsampling


@dataclass(frozen=True)
class SemanticConfig(GridConfig):
    """Shape of the transformer and of what is around its features; defaults: DINO ViT-S/16.

    Attributes:
        image_size: (height, width) in pixels.
        quantizer: turns projected features into integers.
        patch: side of a patch, and so of a token, in pixels.
        dim: width of the transformer.
        depth: its blocks.
        heads: its attention heads.
        registers: its register tokens.
        layer_scale: whether its residual branches are scaled (DINOv2).
        mean: of the pixels (in [0, 1]) that its weights were trained on, by channel.
        std: their standard deviation.
        encoder_depth: blocks of a transformer that learns to see what is coded (VQ-KD); 0: codes
            are of the frozen features themselves (quantised DINO).
        decoder_depth: blocks that recover the features from the codes.
    """

    image_size: Sequence[int] = (224, 224)
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    patch: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    registers: int = 0
    layer_scale: bool = False
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    encoder_depth: int = 0
    decoder_depth: int = 1

    def __post_init__(self) -> None:
        at_least(1, patch=self.patch, dim=self.dim, depth=self.depth, heads=self.heads)
        at_least(0, registers=self.registers, encoder_depth=self.encoder_depth)
        self.check_image_size("the patch")

    @property
    def downsampling(self) -> int:
        return self.patch


GROUPS, EPS = 32, 1e-6  # of every GroupNorm in the family


@dataclass(frozen=True)
class Style:
    """What the codebases do differently.

    Attributes:
        attention: in the middle, and after the residual blocks of `attention_levels`.
        bias: of the convolutions in residual blocks and of the encoder's first.
        centred: strided convolutions pad all sides; else only below and to the right.
        shuffle: upsampling is a convolution to four times the channels, then depth to space;
            else nearest neighbours, then a convolution.
        extra_blocks: residual blocks that a resolution of the decoder has more.
        projected: 3x3 to `z_channels` and 1x1 to the code, and back; else 1x1 to the code.
        adaptive: each resolution of the decoder begins with a norm that the whole grid's codes set.
    """

    attention: bool
    bias: bool
    centred: bool
    shuffle: bool
    extra_blocks: int
    projected: bool
    adaptive: bool = False


STYLES = {
    "taming": Style(True, True, False, False, extra_blocks=1, projected=True),
    "magvit2": Style(False, False, True, True, extra_blocks=0, projected=False),
    "open_magvit2": Style(False, False, True, True, extra_blocks=0, projected=False, adaptive=True),
}


@dataclass(frozen=True)
class VQGANConfig(GridConfig):
    """Shape of a VQGAN; the token grid is image_size / 2^(levels - 1).

    Attributes:
        image_size: (height, width) in pixels.
        quantizer: turns latents into integers; it decides the vocabulary.
        style: "taming", "magvit2" (1X), or "open_magvit2" (TencentARC).
        width: channels after the encoder's first convolution, a multiple of 32.
        multipliers: of the width, one per resolution, from the image down.
        num_res_blocks: residual blocks per resolution.
        z_channels: channels of the latents before their projection to codes (taming).
        attention_levels: resolutions with self-attention, 0 is the image's own (taming).
    """

    image_size: Sequence[int] = (128, 256)
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    style: str = "taming"
    width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 256
    attention_levels: Sequence[int] = (4,)

    def __post_init__(self) -> None:
        one_of(STYLES, style=self.style)
        multiple_of(GROUPS, width=self.width)
        at_least(1, multipliers=self.multipliers, num_res_blocks=self.num_res_blocks)
        self.check_image_size(f"{len(self.multipliers)} resolutions")
        if STYLES[self.style].adaptive and self.tokens_per_frame < 2:
            raise BadInput(
                f"image_size={list(self.image_size)}: is one token; style={self.style} needs the "
                "deviation of several, give a larger image"
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at each resolution, from the image down."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def downsampling(self) -> int:
        return int(2 ** (len(self.multipliers) - 1))
