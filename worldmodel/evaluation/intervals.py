"""Confidence intervals of scores: a bootstrap over drives, because clips of a drive are alike."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

COVERAGE, RESAMPLES, SEED = 0.95, 2000, 0
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A score and its 95 % interval over resampled drives.

    Attributes:
        low, high: ends of the interval; None for a single drive.
        num_clips: clips with a finite value.
        num_drives: drives that those clips come from.
    """

    value: float | None
    low: float | None
    high: float | None
    num_clips: int
    num_drives: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def mean_over_drives(
    values: Sequence[float] | Floats,
    drives: Sequence[str],
    weights: Sequence[float] | Floats | None = None,
) -> Estimate:
    """Mean over clips, with a percentile interval over resampled drives.

    Values that are not finite are left out; `num_clips` counts the others.

    Args:
        drives: the drive that each clip comes from.
        weights: weight of each clip, such as its number of tokens; None: equal.

    Source: Efron and Tibshirani 1993, chapter 13; clusters as in Davison and Hinkley 1997, 3.8.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    ids, inverse = _clusters(drives, len(values))
    finite = np.isfinite(values)
    used = np.unique(inverse[finite])
    if not len(used):
        return Estimate(None, None, None, 0, 0)
    size = len(ids)
    # Sums per drive make a resampling a product of small matrices.
    weighted = np.where(finite, values, 0) * weights * finite
    sums = np.bincount(inverse, weighted, size)[used]
    masses = np.bincount(inverse, weights * finite, size)[used]
    value = float(sums.sum() / masses.sum())
    low = high = None
    if len(used) > 1:
        counts = _resamplings(len(used))
        low, high = _ends((counts @ sums) / (counts @ masses))
    return Estimate(value, low, high, int(finite.sum()), len(used))


def difference(
    values: Sequence[float] | Floats, others: Sequence[float] | Floats, drives: Sequence[str]
) -> Estimate:
    """Mean of `values - others`, paired over clips; an interval without 0 is significant."""
    return mean_over_drives(np.asarray(values, np.float64) - np.asarray(others), drives)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    drives: Sequence[str],
    resamples: int = 100,
    strata: Sequence[int] | None = None,
    centred: bool = False,
) -> Estimate:
    """A statistic that is no mean, such as FVD.

    Args:
        statistic: of the clips with these indices, which may repeat.
        drives: the drive that each clip comes from.
        strata: the set of each clip; every resampling draws each set's number of drives. None: one
            set.
        centred: centre the interval on the value, for statistics that repeated clips bias.
    """
    ids, inverse = _clusters(drives, len(drives))
    value = float(statistic(np.arange(len(drives))))
    members = [np.flatnonzero(inverse == i) for i in range(len(ids))]
    of_drive = np.array([0 if strata is None else strata[clips[0]] for clips in members])
    sets = [np.flatnonzero(of_drive == stratum) for stratum in np.unique(of_drive)]
    low = high = None
    if min(map(len, sets)) > 1:
        rng, found = np.random.default_rng(SEED), []
        for _ in range(resamples):
            drawn = [i for group in sets for i in group[rng.integers(0, len(group), len(group))]]
            found.append(statistic(np.concatenate([members[i] for i in drawn])))
        # Of what is mostly undefined, the rest would tell of the exceptions alone.
        if math.isfinite(value) and np.isfinite(found).mean() > 0.5:
            shift = value - float(np.mean(found)) if centred else 0.0
            low, high = (end + shift for end in _ends(np.array(found)))
    value_or_none = value if math.isfinite(value) else None
    return Estimate(value_or_none, low, high, len(drives), len(ids))


def _clusters(drives: Sequence[str], num: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    assert len(drives) == num, f"{num} values of {len(drives)} clips"
    ids, inverse = np.unique(np.asarray(drives, dtype=object).astype(str), return_inverse=True)
    return ids, inverse


def _resamplings(num: int) -> Floats:
    """Number of draws of each drive, [resample drive]."""
    drawn = np.random.default_rng(SEED).integers(0, num, (RESAMPLES, num))
    counts = np.zeros((RESAMPLES, num))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1)
    return counts


def _ends(statistics: Floats) -> tuple[float, float]:
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(statistics[np.isfinite(statistics)], [tail, 100 - tail])
    return float(low), float(high)
