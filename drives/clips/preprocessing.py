"""Preprocessing of recorded frames for a tokenizer: crop, scale, normalise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from training.errors import BadInput
from training.ranges import at_least, positive


@dataclass(frozen=True)
class Preprocessing:
    """Turns recorded frames into the input that a tokenizer was trained on.

    Attributes:
        window: (height, width) in pixels of the crop from a recorded frame; () for the whole.
        offset: pixels (down, right) from the frame's centre to the window's centre.
        antialias: blur before scaling down (image libraries do, cv2.resize does not).
        value_range: values of black and white.
        mean, std: per channel, in units of `value_range`: subtracted, then divided by.

    Raises:
        BadInput: a value that no frames can have.
    """

    window: tuple[int, ...] = ()
    offset: tuple[int, ...] = (0, 0)
    antialias: bool = True
    value_range: tuple[float, ...] = (-1.0, 1.0)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        lengths = {"window": (0, 2), "offset": (2,), "value_range": (2,), "mean": (3,), "std": (3,)}
        for name, allowed in lengths.items():
            values = getattr(self, name)
            if len(values) not in allowed or not np.isfinite(values).all():
                raise BadInput(f"preprocessing: {name}={values}: give {allowed[-1]} numbers")
        at_least(1, "preprocessing: ", window=self.window)
        positive("preprocessing: ", std=self.std)
        if self.value_range[0] >= self.value_range[1]:
            raise BadInput(f"preprocessing: value_range={self.value_range}: give (low, high)")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Preprocessing":
        """From a manifest; TypeError where a field is unknown, or no list of numbers."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for name, value in fields.items():
            if isinstance(value, tuple) and not all(type(x) in (int, float) for x in value):
                raise TypeError(f"preprocessing: {name}={value}")
        return Preprocessing(**fields)

    def fit(
        self, frames: UInt8[np.ndarray, "time h w 3"], size: Sequence[int]
    ) -> UInt8[Tensor, "time 3 height width"]:
        """Crop and scale to (height, width); frames of that size stay as they are.

        Raises:
            BadInput: there are no frames, or they are not RGB or smaller than the window.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise BadInput(f"frames are {frames.shape}; give at least one, as [time h w 3] RGB")
        if self.window and frames.shape[1:3] != tuple(size):
            frames = self.cut(frames)
        return resize(frames, size, self.antialias)

    def cut(
        self, frames: UInt8[np.ndarray, "time h w 3"]
    ) -> UInt8[np.ndarray, "time height width 3"]:
        """The window of the frames."""
        starts = [
            n // 2 - side // 2 + move
            for n, side, move in zip(frames.shape[1:3], self.window, self.offset, strict=True)
        ]
        ends = [start + side for start, side in zip(starts, self.window, strict=True)]
        if min(starts) < 0 or any(e > n for e, n in zip(ends, frames.shape[1:3], strict=True)):
            raise BadInput(
                f"frames are {frames.shape[1:3]} (height, width): too small for this tokenizer, "
                f"which cuts {self.window} from {self.offset} (down, right) off the centre; give "
                "the camera's own frames, or frames that are cut and scaled already"
            )
        return frames[:, starts[0] : ends[0], starts[1] : ends[1]]

    def to_network(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels in [-1, 1] in the units of the network."""
        low, high = self.value_range
        if (low, high) != (-1.0, 1.0):
            pixels = (pixels + 1) * ((high - low) / 2) + low
        if any(self.mean) or set(self.std) != {1.0}:
            mean, std = (pixels.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
            pixels = (pixels - mean) / std
        return pixels


# commaVQ's crop of comma's road camera (1928x1208): 512x256 pixels of a camera of focal length
# 455, seen with one of 567, and 59/2 pixels above the centre. github.com/commaai/commavq
COMMA_CAMERA = Preprocessing(
    window=(319, 638), offset=(-29, 0), antialias=False, value_range=(0.0, 255.0)
)


def resize(
    frames: UInt8[np.ndarray, "time h w 3"], size: Sequence[int], antialias: bool = True
) -> UInt8[Tensor, "time 3 height width"]:
    """Scale to cover (height, width), then crop the centre."""
    images = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w")
    height, width = size
    if images.shape[-2:] == (height, width):
        return images
    scale = max(height / images.shape[-2], width / images.shape[-1])
    covered = [max(s, round(n * scale)) for s, n in zip(size, images.shape[-2:], strict=True)]
    scaled = F.interpolate(images.float(), covered, mode="bilinear", antialias=antialias)
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    cropped = scaled[..., top : top + height, left : left + width]
    return cropped.round().clamp(0, 255).to(torch.uint8)


def to_pixels(frames: UInt8[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    return frames.float() / 127.5 - 1


def to_uint8(pixels: Float[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n 3 h w"]:
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
