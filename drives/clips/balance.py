"""Balanced sampling: rare weather and rare turns are drawn more often than they were driven."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from drives.drive import Drive
from training.errors import BadInput
from training.ranges import at_least, share


@dataclass(frozen=True)
class BalanceConfig:
    """Which features to balance, and how far (GAIA-1, Hu et al. 2023, arXiv 2309.17080, sec. 4.1).

    A clip's weight is p^-alpha. p is the empirical joint probability of the clip's cell over all
    features. A cell is then drawn in proportion to p^(1 - alpha).

    Attributes:
        features: action columns (the mean over the clip counts), or entries of `drive.json`
            (numbers and names; "weather.rain" is the entry rain of the entry weather).
        alpha: 0 keeps the order of a run without balancing; 1 makes all cells equally frequent.
        bins: number of equal-width bins for a number that takes more different values.

    Raises:
        BadInput: alpha outside [0, 1], or fewer than two bins.
    """

    features: Sequence[str] = ()
    alpha: float = 0.5
    bins: int = 10

    def __post_init__(self) -> None:
        share("data.balance.", alpha=self.alpha)
        at_least(2, "data.balance.", bins=self.bins)

    def weights(
        self, drives: Sequence[Drive], clips: Sequence[int], clip_frames: int
    ) -> Float[np.ndarray, " clip"]:
        """The weight of every clip, drive after drive.

        Args:
            clips: number of clips of each drive; 0 where the drive is shorter than a clip. Clip s
                begins at frame s.
        Raises:
            BadInput: a drive lacks a feature, or the feature is neither a number nor a name.
        """
        cells = np.zeros(sum(clips), np.int64)
        for name in self.features:
            values = np.concatenate(
                [
                    _values(drive, name, count, clip_frames)
                    for drive, count in zip(drives, clips, strict=True)
                    if count
                ]
            )
            feature = self._binned(values)
            cells = np.unique(cells * (feature.max() + 1) + feature, return_inverse=True)[1]
        return (np.bincount(cells)[cells] / len(cells)) ** -self.alpha

    def _binned(self, values: np.ndarray) -> Int[np.ndarray, " clip"]:
        different, numbers = np.unique(values, return_inverse=True)
        if values.dtype.kind in "US" or len(different) <= self.bins:
            return numbers
        edges = np.linspace(different[0], different[-1], self.bins + 1)
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
