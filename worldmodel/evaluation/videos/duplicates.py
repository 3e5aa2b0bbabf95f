"""Near-duplicates among clips: generated ones that copy real ones, or each other.

Clips are compared as drives are before training: by the details of small pictures, against how much
a clip changes by itself within half a second.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from drives.duplicates.likeness import LEAST_CHANGE, MAX_RATIO, own_change, readied
from drives.duplicates.pictures import pictures_of

FRAMES = 4  # of a clip that are compared
SHOWN = 20


class ClipPrint(NamedTuple):
    """What is known of a clip's frames.

    Attributes:
        details: of its chosen frames; the product of two is their mean correlation.
        change: mean distance of its frames to those of half a second later.
    """

    details: Float[np.ndarray, " value"]
    change: float


def print_of(clip: UInt8[Tensor, "time h w 3"], fps: float) -> ClipPrint:
    pictures = pictures_of(clip.numpy())
    chosen = pictures[np.linspace(0, len(pictures) - 1, FRAMES).astype(int)]
    details = readied(chosen).reshape(-1) / FRAMES**0.5
    return ClipPrint(details, float(own_change(pictures, fps).mean()))


def ratios(a: Sequence[ClipPrint], b: Sequence[ClipPrint]) -> Float[np.ndarray, "_ _"]:
    """Distance of each `a` to each `b`, over the change of `b`; a still one counts as nearly so."""
    ours, theirs = (np.stack([one.details for one in prints]) for prints in (a, b))
    change = np.maximum([one.change for one in b], LEAST_CHANGE)
    return np.maximum(1 - ours @ theirs.T, 0) / change


def near_duplicates(
    real: Sequence[ClipPrint],
    fake: Sequence[ClipPrint],
    names: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Pairs of clips whose ratio is below `MAX_RATIO`, and what ratio is usual.

    Args:
        names: the video of each real and of each generated clip.

    Returns:
        fake_of_real, within_fake, within_real: number of clips whose nearest clip (within: of
        another video) is a near-duplicate, the median ratio to it, and the closest pairs as
        (ratio, clip, other clip) by number.
    """
    compared = {
        "fake_of_real": (fake, real, None),
        "within_fake": (fake, fake, names[1]),
        "within_real": (real, real, names[0]),
    }
    return {name: _nearest(*sides) for name, sides in compared.items()}


def _nearest(
    a: Sequence[ClipPrint], b: Sequence[ClipPrint], videos: Sequence[str] | None
) -> dict[str, Any]:
    table = ratios(a, b)
    if videos is not None:
        same = np.asarray(videos, object)
        table[same[:, None] == same[None]] = np.inf
    place = table.argmin(1)
    nearest = table[np.arange(len(a)), place]
    known = np.isfinite(nearest)
    order = [int(i) for i in nearest.argsort(kind="stable") if nearest[i] < MAX_RATIO][:SHOWN]
    return {
        "num_clips": int(known.sum()),
        "num_near_duplicates": int((nearest < MAX_RATIO).sum()),
        "median_ratio": float(np.median(nearest[known])) if known.any() else None,
        "pairs": [[round(float(nearest[i]), 3), i, int(place[i])] for i in order],
    }
