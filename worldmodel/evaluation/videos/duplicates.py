"""Near-duplicates: generated clips that copy real ones, or each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from worldmodel.evaluation.videos.pixels import luma

FRAMES, SIDE = 4, 16
ALIKE = 3.0  # 8-bit levels, above noise and compression, below other moments of a drive
SHOWN = 20

Thumbnails = Float[Tensor, "_ pixel"]


def thumbnail(clip: UInt8[Tensor, "time h w 3"]) -> Float[Tensor, " pixel"]:
    """Four frames of a clip at 16 x 16, grey, in 8-bit levels."""
    chosen = clip[torch.linspace(0, len(clip) - 1, FRAMES).long()]
    return F.adaptive_avg_pool2d(luma(chosen)[:, None], SIDE).flatten()


def distances(a: Thumbnails, b: Thumbnails) -> Float[Tensor, "_ _"]:
    """Root mean squared difference of thumbnails in 8-bit levels."""
    return torch.cdist(a.double(), b.double()).float() / a.shape[1] ** 0.5


def near_duplicates(
    real: Thumbnails, fake: Thumbnails, names: tuple[Sequence[str], Sequence[str]]
) -> dict[str, Any]:
    """Count clips whose nearest clip differs by less than `ALIKE`.

    Args:
        names: the video of each real and of each generated clip.

    Returns:
        fake_of_real, within_fake, within_real (of another video): number of such clips, median
        distance to the nearest clip, and the closest pairs as (distance, clip, other clip).
    """
    compared = {
        "fake_of_real": (fake, real, None),
        "within_fake": (fake, fake, names[1]),
        "within_real": (real, real, names[0]),
    }
    return {name: _nearest(*sides) for name, sides in compared.items()}


def _nearest(a: Thumbnails, b: Thumbnails, videos: Sequence[str] | None) -> dict[str, Any]:
    table = distances(a, b)
    if videos is not None:
        same = np.asarray(videos, object)
        table[torch.from_numpy(same[:, None] == same[None])] = torch.inf
    nearest, place = table.min(1)
    known = nearest.isfinite()
    order = [int(i) for i in nearest.argsort() if nearest[i] < ALIKE][:SHOWN]
    return {
        "num_clips": int(known.sum()),
        "num_near_duplicates": int((nearest < ALIKE).sum()),
        "median_distance": float(nearest[known].median()) if known.any() else None,
        "pairs": [[round(float(nearest[i]), 3), i, int(place[i])] for i in order],
    }
