"""Balanced sampling: rare weather and rare turns are drawn more often than they were driven."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from drives.clips.config import BalanceConfig
from drives.drive import Drive
from training.errors import BadInput


def clip_weights(
    config: BalanceConfig, drives: Sequence[Drive], clips: Sequence[int], clip_frames: int
) -> Float[np.ndarray, " clip"]:
    """The weight of every clip, drive after drive.

    Args:
        clips: number of clips of each drive; 0 where the drive is shorter than a clip. Clip s
            begins at frame s.

    Raises:
        BadInput: a drive lacks a feature, or the feature is neither a number nor a name.
    """

    def of_clips(name: str) -> np.ndarray:
        found = [
            _values(drive, name, count, clip_frames)
            for drive, count in zip(drives, clips, strict=True)
            if count
        ]
        return np.concatenate(found)

    return joint_weights(config, of_clips, sum(clips))


def joint_weights(
    config: BalanceConfig, values: Callable[[str], np.ndarray], num: int
) -> Float[np.ndarray, " clip"]:
    """The weight of every clip by the joint histogram of the features.

    Args:
        values: a feature of every clip, by its name.
    """
    cells = np.zeros(num, np.int64)
    for name in config.features:
        feature = _binned(values(name), config.bins)
        cells = np.unique(cells * (feature.max() + 1) + feature, return_inverse=True)[1]
    return (np.bincount(cells)[cells] / len(cells)) ** -config.alpha


def _binned(values: np.ndarray, bins: int) -> Int[np.ndarray, " clip"]:
    different, numbers = np.unique(values, return_inverse=True)
    if values.dtype.kind in "US" or len(different) <= bins:
        return numbers
    edges = np.linspace(different[0], different[-1], bins + 1)
    return np.searchsorted(edges[1:-1], values, side="right")


def _values(drive: Drive, name: str, count: int, clip_frames: int) -> np.ndarray:
    """A feature of each of the first `count` clips of a drive: numbers, or names."""
    if name in drive.action_names:
        column = drive.select_actions([name])[:, 0].astype(np.float64)
        return sliding_window_view(column, clip_frames).mean(-1)[:count]
    value: Any = drive.meta
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float | str):
        there = [k for k, v in drive.meta.items() if isinstance(v, int | float | str)]
        raise BadInput(
            f"data.balance.features: {drive.path}/drive.json gives {name}={value!r}, a number or "
            f"a name is needed; there are {', '.join(there)}, and the actions "
            f"{', '.join(drive.action_names)}"
        )
    return np.full(count, value)
