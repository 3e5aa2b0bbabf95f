"""Agreement of commanded actions with those read from the clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from worldmodel.evaluation.intervals import Estimate, bootstrap, mean_over_drives

Readings = Float[np.ndarray, "clip step"]


@dataclass(frozen=True)
class Agreement:
    """Agreement of one column of readings with the actions.

    Attributes:
        correlation: Pearson's, over all steps of all clips; None where either is constant.
        slope: of the least-squares line of readings over actions; 1 for perfect obedience.
        error: root mean square of the difference, in the column's unit.
    """

    correlation: Estimate
    slope: Estimate
    error: Estimate

    def plain(self) -> dict[str, Any]:
        return {name: getattr(self, name).plain() for name in ("correlation", "slope", "error")}


def agreement(read: Readings, commanded: Readings, drives: Sequence[str]) -> Agreement:
    """The agreement of readings with actions, with intervals over drives.

    Args:
        drives: the drive of every clip.
    """
    read, commanded = np.asarray(read, np.float64), np.asarray(commanded, np.float64)
    ones = np.ones_like(read)
    # A resampling then sums a few numbers per clip.
    moments = np.stack([ones, commanded, read, commanded**2, commanded * read, read**2]).sum(-1)

    def correlation(clips: np.ndarray) -> float:
        var_x, cov, var_y = _variances(moments[:, clips])
        return cov / np.sqrt(var_x * var_y) if var_x > 0 and var_y > 0 else np.nan

    def slope(clips: np.ndarray) -> float:
        var_x, cov, _ = _variances(moments[:, clips])
        return cov / var_x if var_x > 0 else np.nan

    def error(clips: np.ndarray) -> float:
        num, _, _, xx, xy, yy = moments[:, clips].sum(1)
        return float(np.sqrt(max(0.0, xx - 2 * xy + yy) / num))

    return Agreement(*(bootstrap(s, drives, 1000) for s in (correlation, slope, error)))


def _variances(moments: np.ndarray) -> tuple[float, float, float]:
    """Variance of actions, covariance, variance of readings; 0 below rounding."""
    num, x, y, xx, xy, yy = moments.sum(1)
    cov = xy / num - x * y / num**2
    var_x, var_y = (v / num - (m / num) ** 2 for v, m in ((xx, x), (yy, y)))
    least_x, least_y = 1e-12 * xx / num, 1e-12 * yy / num
    return float(var_x * (var_x > least_x)), float(cov), float(var_y * (var_y > least_y))


def correlation_by_lag(
    read: Readings, actions: Float[np.ndarray, "clip step"], lags: Sequence[int]
) -> dict[int, float]:
    """Correlation of readings with actions `lag` rows later, over the same steps at every lag.

    It peaks at 0 where row t leads to frame t + 1, because readings see the motion itself. That
    holds even if the reader was trained on shifted rows.
    """
    most = max(map(abs, lags))
    steps = read.shape[1]
    if steps <= 2 * most:
        raise ValueError(f"{steps} steps are too few for lags up to {most}")
    inner = read[:, most : steps - most].ravel()
    found = {}
    for lag in lags:
        shifted = actions[:, most + lag : steps - most + lag].ravel()
        constant = np.ptp(shifted) == 0 or np.ptp(inner) == 0
        found[lag] = np.nan if constant else float(np.corrcoef(inner, shifted)[0, 1])
    return found


def curve(
    read: Float[np.ndarray, "level clip"], levels: Sequence[float], drives: Sequence[str]
) -> list[dict[str, Any]]:
    """Mean reading at every commanded level, with its interval over drives."""
    rows = zip(levels, read, strict=True)
    return [{"commanded": c, "obtained": mean_over_drives(r, drives).plain()} for c, r in rows]
