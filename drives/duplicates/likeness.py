"""Likeness: distance of aligned samples, relative to the change within a drive.

The distance of two pictures is 1 - the correlation of their details, of two token grids the share
of cells that differ. A copy is much closer to its original than the original is to itself half a
second later. Another lap over the same road, at another speed, is not.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

MAX_RATIO = 0.25  # largest mean distance of a copy, over the change within `LATER_S`
LATER_S = 0.5
LEAST_CHANGE = 0.05  # less is a standing car, which is alike in every lap
BLUR = 9  # pixels; wider details make all straight roads alike


class Edges(NamedTuple):
    """Shares that are cut from the edges of a picture."""

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0


def readied(
    samples: Num[np.ndarray, "sample *size"], edges: Edges | None = None
) -> Num[np.ndarray, "sample values"]:
    """Prepare samples for `distance`: tokens stay, of pictures the details remain.

    A blurred copy is subtracted from pictures; then they get mean 0 and length 1.

    Args:
        edges: cut from the pictures; the rest is scaled up again.
    """
    if samples.ndim == 2:
        return samples
    pictures = np.asarray(samples, np.float32)
    if edges is not None and any(edges):
        side = pictures.shape[-1]
        across = _resampling(side, edges.left, edges.right)
        pictures = _resampling(side, edges.top, edges.bottom) @ pictures @ across.T
    blur = _blur(pictures.shape[-1])
    flat = (pictures - blur @ pictures @ blur.T).reshape(len(pictures), -1)
    flat = flat - flat.mean(-1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)


def distance(
    a: Num[np.ndarray, "sample values"], b: Num[np.ndarray, "sample values"]
) -> Float[np.ndarray, " sample"]:
    """Distance of each sample to the one in the same place."""
    if np.issubdtype(a.dtype, np.integer):
        return (a != b).mean(-1)
    return 1 - np.einsum("nv,nv->n", a, b)


def own_change(
    samples: Num[np.ndarray, "sample *size"], rate_hz: float
) -> Float[np.ndarray, " sample"]:
    """Distance of each sample to that of half a second later; at the end, to an earlier one."""
    if len(samples) < 2:
        return np.zeros(len(samples))
    later = min(len(samples) - 1, max(1, round(LATER_S * rate_hz)))
    ready = readied(samples)
    ahead = distance(ready[:-later], ready[later:])
    return np.concatenate([ahead, ahead[-1:].repeat(later)])


@cache
def _blur(side: int) -> Float[np.ndarray, "side side"]:
    """Means over `BLUR` neighbours, fewer at the ends."""
    near = np.abs(np.arange(side)[:, None] - np.arange(side)) <= BLUR // 2
    return (near / near.sum(1, keepdims=True)).astype(np.float32)


@cache
def _resampling(side: int, before: float, after: float) -> Float[np.ndarray, "side side"]:
    """Linear resampling of the middle of a row to a whole row."""
    at = (np.arange(side) + 0.5) / side
    place = np.clip((before + at * (1 - before - after)) * side - 0.5, 0, side - 1)
    low = np.minimum(place.astype(int), side - 2)
    matrix = np.zeros((side, side), np.float32)
    rows = np.arange(side)
    matrix[rows, low] = 1 - (place - low)
    matrix[rows, low + 1] += place - low
    return matrix
