"""Pictures: small grey ones of frames, in which footage is recognised."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 32
AT_ONCE = 128


def pictures_of(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
) -> UInt8[np.ndarray, "frame 32 32"]:
    """The small grey picture of every frame."""
    iterator, parts = iter(frames), []
    while batch := list(islice(iterator, AT_ONCE)):
        grey = torch.from_numpy(np.stack(batch)).float().mean(-1)[:, None]
        parts.append(adaptive_avg_pool2d(grey, (SIDE, SIDE))[:, 0].round().to(torch.uint8))
    return torch.cat(parts).numpy()
