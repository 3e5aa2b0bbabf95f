"""Do dreams rank policies as the road does, and when is the ranking not to be trusted?"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from worldmodel.evaluation.intervals import Estimate, bootstrap

RESAMPLES = 500
DECIDED = 2.0  # standard errors
Returns = Float[np.ndarray, "policy track"]


@dataclass(frozen=True)
class Ranking:
    """At one horizon.

    Attributes:
        tau: Kendall's, of the mean returns over tracks.
        margin: rank correlation, over pairs of policies, of the gap between their dreamt returns in
            standard errors with whether their order is right. A dream knows the gap.
        decided: share of the pairs of policies whose dreamt returns differ by more than two
            standard errors, over tracks.
        right_decided, right_others: share of the pairs in the right order, among those and among
            the others; NaN where there are none.
        warnings: rank correlation of each signal with the error of a dream's return, over policies
            and tracks.
        trusted: tau of the half of the tracks where a signal is low, and of the other half.
    """

    tau: Estimate
    margin: Estimate
    decided: float
    right_decided: float
    right_others: float
    warnings: dict[str, Estimate]
    trusted: dict[str, tuple[float, float]]


def rank(dreamt: Returns, real: Returns, signals: Mapping[str, Returns]) -> Ranking:
    """Compare returns of dreams with those of the road, track by track.

    Args:
        signals: what a dream itself tells of its worth, of every policy and track.
    """
    tracks = [str(number) for number in range(real.shape[1])]
    tau = bootstrap(partial(_tau, dreamt, real), tracks, RESAMPLES)
    known = bootstrap(partial(_margin_tells, dreamt, real), tracks, RESAMPLES)
    right, margin = _pairs(dreamt, real)
    decided = margin > DECIDED
    # A road that pays less everywhere is no error of the ranking: each side around its mean.
    error = np.abs((dreamt - dreamt.mean()) - (real - real.mean()))
    warnings, trusted = {}, {}
    for name, signal in signals.items():
        warnings[name] = bootstrap(partial(_correlation, signal, error), tracks, RESAMPLES)
        order = np.argsort(signal.mean(0), kind="stable")
        half = len(order) // 2
        trusted[name] = _tau(dreamt, real, order[:half]), _tau(dreamt, real, order[half:])
    return Ranking(tau, known, float(decided.mean()), *_shares(right, decided), warnings, trusted)


def kendall_tau(one: Float[np.ndarray, " policy"], other: Float[np.ndarray, " policy"]) -> float:
    """Pairs in the same order less those in the other, as a share (Kendall 1938); a tie is none."""
    above = np.triu_indices(len(one), 1)
    first, second = (np.sign(x[:, None] - x[None])[above] for x in (one, other))
    return float((first * second).mean())


def _pairs(
    dreamt: Returns, real: Returns
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Of every two policies: whether the order is right, and its margin in standard errors."""
    above = np.triu_indices(len(real), 1)
    gap = (dreamt[:, None] - dreamt[None])[above]
    truth = (real[:, None] - real[None])[above].mean(1)
    error = gap.std(1, ddof=1) / np.sqrt(gap.shape[1])
    margin = np.abs(gap.mean(1)) / np.maximum(error, 1e-9)
    return (np.sign(gap.mean(1)) == np.sign(truth)).astype(float), margin


def _shares(right: np.ndarray, decided: np.ndarray) -> tuple[float, float]:
    kinds = (right[decided], right[~decided])
    first, second = (float(kind.mean()) if len(kind) else float("nan") for kind in kinds)
    return first, second


def _tau(dreamt: Returns, real: Returns, at: Int[np.ndarray, " track"]) -> float:
    """Of the mean returns over some tracks."""
    return kendall_tau(dreamt[:, at].mean(1), real[:, at].mean(1))


def _margin_tells(dreamt: Returns, real: Returns, at: Int[np.ndarray, " track"]) -> float:
    return _ranks_correlate(*_pairs(dreamt[:, at], real[:, at]))


def _correlation(signal: Returns, error: Returns, at: Int[np.ndarray, " track"]) -> float:
    """Over policies and some tracks."""
    return _ranks_correlate(signal[:, at].ravel(), error[:, at].ravel())


def _ranks_correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; NaN where one side never changes."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
