"""Settings of the tokenizers' networks; imports no torch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizer.quantizers.config import FSQConfig, QuantizerConfig
from training.errors import BadInput
from training.ranges import at_least, multiple_of, one_of, positive


class GridConfig(ABC):
    """Base of the configs of tokenizers whose tokens lie on a grid of `downsampling` pixels."""

    image_size: Sequence[int]

    @property
    @abstractmethod
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, height, width) of the token grid of a time step."""
        height, width = self.image_size
        return 1, height // self.downsampling, width // self.downsampling

    @property
    def frames_per_step(self) -> int:
        """Frames per time step; the first time step of a drive holds one frame."""
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
        """BadInput unless frames of shape [..., h, w] have `image_size`."""
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
        quantizer: turns latents into integers; it determines the vocabulary.
        patch: side in pixels of the patches of the first and last convolution.
        channels: width at each resolution; each further entry halves the resolution.
        num_res_blocks: residual blocks per resolution (the decoder has one more).
        attention: spatial self-attention at the lowest resolution.
        upsampled: width at each further resolution of the decoder alone, between the patches and
            the pixels; each entry doubles the resolution by a pixel shuffle, and halves the patch
            of the last convolution.
    """

    image_size: Sequence[int] = (64, 64)
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    patch: int = 2
    channels: Sequence[int] = (48, 96, 128)
    num_res_blocks: int = 1
    attention: bool = True
    upsampled: Sequence[int] = ()

    def __post_init__(self) -> None:
        at_least(1, channels=self.channels, patch=self.patch, upsampled=self.upsampled)
        at_least(1, **{"len(channels)": len(self.channels)})
        at_least(0, num_res_blocks=self.num_res_blocks)
        self.check_image_size(f"patch {self.patch}, {len(self.channels)} resolutions")
        if self.patch % 2 ** len(self.upsampled):
            raise BadInput(
                f"upsampled={list(self.upsampled)}: each entry halves patch={self.patch}, which "
                f"must be a multiple of {2 ** len(self.upsampled)}; give fewer entries"
            )

    @property
    def decoder_patch(self) -> int:
        """Side in pixels of the patches of the decoder's last convolution."""
        return self.patch // 2 ** len(self.upsampled)

    @property
    def downsampling(self) -> int:
        return int(self.patch * 2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class MusikConfig(AutoencoderConfig):
    """Shape of the encoder (as of an autoencoder) and of the energy model that trains it.

    Attributes:
        num_actions: number of action columns; comes from the data.
        clip_frames: frames of a training clip; a pair of frames is 1 .. clip_frames - 1 apart.
        num_negatives: false actions per true action, uniform over the range of seen actions.
        hidden: width of the energy model.
    """

    num_actions: int = 0
    clip_frames: int = 15
    num_negatives: int = 256
    hidden: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.upsampled:
            raise BadInput(f"upsampled={list(self.upsampled)}: MUSIK has no decoder; leave it out")
        at_least(2, clip_frames=self.clip_frames)  # a pair of frames
        at_least(1, num_negatives=self.num_negatives, hidden=self.hidden)
        at_least(0, num_actions=self.num_actions)


@dataclass(frozen=True)
class SemanticConfig(GridConfig):
    """Shape of the frozen transformer and of the tokenizer on its features; default: DINO ViT-S/16.

    Attributes:
        image_size: (height, width) in pixels.
        quantizer: turns projected features into integers.
        patch: side of a patch in pixels; a patch is a token.
        dim: width of the transformer.
        depth: number of its blocks.
        heads: number of its attention heads.
        registers: number of its register tokens.
        layer_scale: whether its residual branches are scaled (DINOv2).
        mean: mean of its training pixels (in [0, 1]) per channel.
        std: standard deviation of its training pixels per channel.
        encoder_depth: number of blocks of a trained encoder (VQ-KD); 0: the frozen features
            themselves are coded (quantised DINO).
        decoder_depth: number of blocks that recover the features from the codes.
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
        at_least(0, decoder_depth=self.decoder_depth)
        at_least(0.0, mean=self.mean)
        positive(std=self.std)
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise BadInput(f"{name}={list(getattr(self, name))}: give three numbers, for RGB")
        multiple_of(self.heads, "heads", dim=self.dim)
        self.check_image_size("the patch")

    @property
    def downsampling(self) -> int:
        return self.patch


GROUPS, EPS = 32, 1e-6  # of every GroupNorm in the family


@dataclass(frozen=True)
class Style:
    """Differences between the codebases.

    Attributes:
        attention: attention in the middle and after the residual blocks of `attention_levels`.
        bias: bias of the convolutions in residual blocks and of the encoder's first convolution.
        centred: strided convolutions pad all sides; else only below and to the right.
        shuffle: upsampling is a convolution to four times the channels, then depth to space;
            else nearest neighbours, then a convolution.
        extra_blocks: further residual blocks per resolution of the decoder.
        projected: a 3x3 convolution to `z_channels`, then 1x1 to the code; else 1x1 only.
        adaptive: each resolution of the decoder begins with a norm; its scale and shift come from
            the codes of the whole grid.
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
        quantizer: turns latents into integers; it determines the vocabulary.
        style: "taming", "magvit2" (1X), or "open_magvit2" (TencentARC).
        width: channels after the encoder's first convolution; a multiple of 32.
        multipliers: channels per resolution as multiples of the width, from the image down.
        num_res_blocks: residual blocks per resolution.
        z_channels: channels of the latents before the projection to codes (taming).
        attention_levels: resolutions with self-attention; 0 is the resolution of the image
            (taming).
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
