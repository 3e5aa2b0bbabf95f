"""Statistics of a clip in space and time: features for a Frechet distance that need no download.

They measure brightness, contrast, texture, flicker, colour and directed motion, not content. A
distance of 0 means that clips are alike in these alone.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from worldmodel.evaluation.videos.pixels import luma

VERSION = 1  # raise it with every change that alters a feature
SIDE, CELLS = 64, 4
# Divisor of each kind, about its spread on drives, so that none outweighs the others.
SCALES = {
    "brightness": 0.09,
    "contrast": 0.04,
    "texture": 0.035,
    "change": 0.02,
    "flicker": 0.03,
    "motion_x": 0.25,
    "motion_y": 0.15,
}
COLOUR = 0.06
QUIET = 2e-4  # mean squared slope below which a cell counts as still
NUM_FEATURES = len(SCALES) * CELLS**2 + 3


def clip_statistics(clips: UInt8[Tensor, "n time h w 3"]) -> Float[Tensor, "n feature"]:
    """115 numbers per clip: seven kinds in each of 4 x 4 cells of the frame, and the mean colour.

    Frames are scaled to 64 x 64. The motion of a cell is its least-squares displacement in pixels
    per frame along one axis, -sum I_t I_x / sum I_x^2; reversing a clip turns its sign.

    Source of the motion: Lucas and Kanade 1981, eq. 9.
    """
    n, time = clips.shape[:2]
    small = F.adaptive_avg_pool2d(luma(clips).flatten(0, 1)[:, None] / 255, SIDE)
    y = small.view(n, time, SIDE, SIDE)
    mean, square = _cells(y), _cells(y.square())
    step = y.diff(dim=1)
    # Centred in time and space: otherwise unrelated frames would show motion.
    middle = (y[:, 1:] + y[:, :-1]) / 2
    along, across = _slope(middle, 3), _slope(middle, 2)
    kinds = {
        "brightness": mean,
        "contrast": (square - mean.square()).clamp(min=0).sqrt(),
        "texture": _cells(_laplacian(y).abs()),
        "change": _cells(step.abs()),
        "flicker": _cells(y.diff(n=2, dim=1).abs()),
        "motion_x": -_cells(step * along) / (_cells(along.square()) + QUIET),
        "motion_y": -_cells(step * across) / (_cells(across.square()) + QUIET),
    }
    colour = clips.float().mean((1, 2, 3)) / 255 / COLOUR
    return torch.cat([*(kinds[name] / SCALES[name] for name in SCALES), colour], 1)


def _cells(x: Float[Tensor, "n time h w"]) -> Float[Tensor, "n cell"]:
    """Means over time and over the pixels of each cell."""
    return F.adaptive_avg_pool2d(x.mean(1), CELLS).flatten(1)


def _slope(y: Float[Tensor, "n time h w"], axis: int) -> Float[Tensor, "n time h w"]:
    """Half the difference of both neighbours along an axis; 0 at the frame's edges."""
    size = y.shape[axis]
    inner = (y.narrow(axis, 2, size - 2) - y.narrow(axis, 0, size - 2)) / 2
    return F.pad(inner, (1, 1) if axis == 3 else (0, 0, 1, 1))


def _laplacian(y: Float[Tensor, "n time h w"]) -> Float[Tensor, "n time h w"]:
    padded = F.pad(y, (1, 1, 1, 1), mode="replicate")
    around = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    around = around + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    return around - 4 * y
