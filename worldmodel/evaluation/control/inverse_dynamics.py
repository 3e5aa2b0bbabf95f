"""An inverse-dynamics model: reads speed and turn of the car from a video.

The network compares two consecutive frames, and is odd in their order:

    read(a, b) = g(a, b) - g(b, a)

So a still picture reads as exactly zero, and what both frames share cancels: a pattern of the
decoder, or the bend of the road, from which one could guess the steering without motion. Only the
difference of `b` from `a` counts.

`training.py` trains it on recordings; it reads pixels of any system.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.disk.leftovers import written_whole
from training.errors import BadInput
from training.ranges import at_least, positive

# Columns that pixels show, each with its sign in the mirrored picture.
READABLE = {"speed_mps": 1.0, "yaw_rate_rad_s": -1.0, "curvature_per_m": -1.0, "steering": -1.0}
LUMA = (0.299, 0.587, 0.114)
STRIDE = 16  # of the network: sides are multiples
CHUNK = 256  # pairs at once
KIND = "inverse_dynamics"


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """Size and training of an inverse-dynamics model.

    Attributes:
        height: of its grey pictures in pixels; the width keeps the frames' aspect.
        channels: of the first layer.
        steps, batch_size, learning_rate: of the training.
        max_frames: frames for training, evenly spread over the recordings.
        noise, pattern: standard deviations in grey levels of the noise (at most) and of the still
            patterns that training adds.

    Raises:
        BadInput: a number that is not positive, or a height that is no multiple of 16.
    """

    height: int = 32
    channels: int = 16
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 4e-3
    max_frames: int = 20_000
    noise: float = 2.0
    pattern: float = 12.0
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("channels", "steps", "batch_size", "max_frames")
        at_least(1, "inverse dynamics: ", **{name: getattr(self, name) for name in names})
        positive("inverse dynamics: ", learning_rate=self.learning_rate)
        if self.height % STRIDE or self.height < STRIDE:
            raise BadInput(
                f"inverse dynamics: height={self.height}: give a multiple of {STRIDE}, such as 32"
            )


class InverseDynamics(nn.Module):
    """Reads the columns `names` from pairs of frames.

    Args:
        names: action columns, each in `READABLE`.
        width: of its pictures in pixels, a multiple of 16.

    Attributes:
        scale: root mean square of each column in the recordings.
    """

    scale: Tensor

    def __init__(self, names: Sequence[str], config: InverseDynamicsConfig, width: int) -> None:
        super().__init__()
        self.names, self.config, self.width = tuple(names), config, width
        first = config.channels
        sizes = [2, first, 2 * first, 4 * first, 4 * first]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(sizes)):
            side = 5 if index == 0 else 3
            layers += [nn.Conv2d(before, after, side, 2, side // 2), nn.ReLU()]
        cells = (config.height // STRIDE) * (width // STRIDE)
        head = [nn.Flatten(), nn.Linear(sizes[-1] * cells, 128), nn.ReLU()]
        self.layers = nn.Sequential(*layers, *head, nn.Linear(128, len(self.names)))
        self.register_buffer("scale", torch.ones(len(self.names)))

    def forward(
        self, first: Float[Tensor, "pair 1 h w"], second: Float[Tensor, "pair 1 h w"]
    ) -> Float[Tensor, "pair column"]:
        """Motion between two grey pictures (0 to 255), in units of `scale`."""
        level = (first + second).mean((1, 2, 3), keepdim=True) / 2
        first, second = (first - level) / 32, (second - level) / 32
        there, back = torch.cat([first, second], 1), torch.cat([second, first], 1)
        forth, reverse = self.layers(torch.cat([there, back])).chunk(2)
        return forth - reverse

    @torch.no_grad()
    def read(
        self, frames: UInt8[np.ndarray, "clip time height width 3"]
    ) -> Float[np.ndarray, "clip step column"]:
        """Motion from frame t to t + 1, in the columns' units; time - 1 steps."""
        grey = [grey_pictures(clip, self.config.height, self.width) for clip in frames]
        read = []
        for clip in grey:
            pictures = clip.float()[:, None]
            pairs = zip(pictures[:-1].split(CHUNK), pictures[1:].split(CHUNK), strict=True)
            read.append(torch.cat([self(first, second) for first, second in pairs]))
        values: Float[np.ndarray, "clip step column"]
        values = (torch.stack(read) * self.scale).double().numpy()
        return values

    @property
    def hash(self) -> str:
        """sha256 of settings and weights."""
        digest = hashlib.sha256(_described(self).encode())
        for tensor in self.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def grey_pictures(
    frames: UInt8[np.ndarray, "time height width 3"], height: int, width: int | None = None
) -> UInt8[Tensor, "time h w"]:
    """Frames as small grey pictures; every pixel is a mean over the pixels that it covers."""
    width = width or width_of(frames.shape[1:3], height)
    luma, small = torch.tensor(LUMA), []
    for chunk in torch.from_numpy(np.ascontiguousarray(frames)).split(CHUNK):
        grey = (chunk.float() @ luma)[:, None]
        small.append(F.interpolate(grey, (height, width), mode="area")[:, 0].round().byte())
    return torch.cat(small)


def width_of(size: Sequence[int], height: int) -> int:
    """Width in pixels of pictures of this height, for frames of (height, width) `size`."""
    return max(1, round(height * size[1] / size[0] / STRIDE)) * STRIDE


def readable(names: Sequence[str]) -> list[str]:
    """Those of the columns that pixels show."""
    return [name for name in names if name in READABLE]


def save(model: InverseDynamics, file: Path) -> None:
    with written_whole(file) as partial:
        save_file(model.state_dict(), partial, {KIND: _described(model)})


def load(file: Path) -> InverseDynamics:
    """The model of a file; its weights are read without running code.

    Raises:
        BadInput: the file is damaged, or no inverse-dynamics model.
    """
    try:
        with safe_open(file, "pt") as opened:
            described: dict[str, Any] = json.loads(opened.metadata()[KIND])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        config = InverseDynamicsConfig(**described["config"])
        model = InverseDynamics(described["names"], config, described["width"])
        model.load_state_dict(weights)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"{file}: is no whole inverse-dynamics model ({error}); remove it, it is trained again"
        ) from error
    return model.eval()


def _described(model: InverseDynamics) -> str:
    facts = {"names": model.names, "config": asdict(model.config), "width": model.width}
    return json.dumps(facts, sort_keys=True)
