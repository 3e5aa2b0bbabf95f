"""Statistics of a feature, as `meta/stats.json` and the episodes' tables hold them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from drives.drive import Drive

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
SAMPLED = 20  # frames of a drive whose pixels are counted
LEVELS = np.arange(256) / 255

Statistics = dict[str, Any]
Histogram = Int64[np.ndarray, "channel 256"]


def of_numbers(values: Float[np.ndarray, "frame number"]) -> Statistics:
    """min, max, mean, std, count and quantiles of each number."""
    found: Statistics = {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0, dtype=np.float64).tolist(),
        "std": values.std(axis=0, dtype=np.float64).tolist(),
        "count": [len(values)],
    }
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return found | {name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)}


def histogram(drive: Drive) -> tuple[Histogram, int]:
    """How often each level is there in each channel, of frames spread over the drive."""
    levels = np.zeros((3, 256), np.int64)
    places = np.unique(np.linspace(0, len(drive.actions) - 1, SAMPLED).astype(int))
    for frame in _frames(drive, places.tolist()):
        for channel in range(3):
            levels[channel] += np.bincount(frame[:, :, channel].ravel(), minlength=256)
    return levels, len(places)


def of_pixels(levels: Histogram, num_frames: int) -> Statistics:
    """The same of pixels in [0, 1], each of shape [channel, 1, 1]."""
    count = levels.sum(axis=1)
    mean = (levels * LEVELS).sum(axis=1) / count
    spread = np.sqrt((levels * (LEVELS - mean[:, None]) ** 2).sum(axis=1) / count)
    share = levels.cumsum(axis=1) / count[:, None]
    rows = {"min": 0.0, "max": 1.0, **QUANTILES}
    found = {name: _level(levels, share, at) for name, at in rows.items()}
    found |= {"mean": mean, "std": spread}
    shaped = {name: values[:, None, None].tolist() for name, values in found.items()}
    return shaped | {"count": [num_frames]}


def _level(levels: Histogram, share: np.ndarray, at: float) -> np.ndarray:
    if at == 0:
        return LEVELS[(levels > 0).argmax(axis=1)]
    return LEVELS[(share >= at - 1e-12).argmax(axis=1)]


def _frames(drive: Drive, places: list[int]) -> Iterator[np.ndarray]:
    for place in places:
        yield from drive.frames(place, place + 1)
