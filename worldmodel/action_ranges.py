"""Ranges and moments of each action column, from drives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from drives.tokens.store import TokenDrive
from worldmodel.dynamics.actions.config import ActionMoments
from worldmodel.dynamics.config import ActionRanges

MAX_DRIVES = 1024  # a large store is not read whole before the first step
CONSTANT = 1e-6  # a smaller deviation, as a share of the mean, is rounding


def action_facts(drives: Sequence[TokenDrive]) -> dict[str, Any]:
    """`action_ranges` and `action_moments` of these drives, which are read once."""
    return _facts(*_sample(drives))


def facts_of_rows(rows: Float[np.ndarray, "row action"]) -> dict[str, Any]:
    """As `action_facts`, of rows that are at hand."""
    return _facts(*_judged(rows))


def action_ranges(drives: Sequence[TokenDrive], max_rows: int = 2**20) -> ActionRanges:
    """Lowest and highest action of every column without outliers: the range of its bins.

    A value is an outlier if it lies further outside the quantiles 0.1 % and 99.9 % than these are
    apart. Otherwise, one broken row would stretch the bins. A constant column gets a range around
    its value. At most `max_rows` rows of `MAX_DRIVES` drives are read, evenly spaced.
    """
    return _ranges(*_sample(drives, max_rows))


def action_moments(drives: Sequence[TokenDrive], max_rows: int = 2**20) -> ActionMoments:
    """Mean and standard deviation of every column, of the rows of `action_ranges`.

    A constant column gets the deviation 1.
    """
    return _moments(*_sample(drives, max_rows))


def _sample(
    drives: Sequence[TokenDrive], max_rows: int = 2**20
) -> tuple[Float[np.ndarray, "row action"], Bool[np.ndarray, "row action"]]:
    """Rows of actions, and which of their values are no outliers."""
    drives = drives[:: -(-len(drives) // MAX_DRIVES)]
    every = -(-sum(drive.num_steps for drive in drives) // max_rows)
    found = [drive.actions[::every] for drive in drives if not drive.damage]
    return _judged(np.concatenate(found or [drives[0].actions]))


def _judged(
    rows: Float[np.ndarray, "row action"],
) -> tuple[Float[np.ndarray, "row action"], Bool[np.ndarray, "row action"]]:
    rows = rows.astype(np.float64)
    low, high = np.quantile(rows, [0.001, 0.999], axis=0)
    margin = np.where(high > low, high - low, np.inf)
    return rows, (rows >= low - margin) & (rows <= high + margin)


def _facts(rows: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    return {"action_ranges": _ranges(rows, inside), "action_moments": _moments(rows, inside)}


def _ranges(rows: np.ndarray, inside: np.ndarray) -> ActionRanges:
    low = np.where(inside, rows, np.inf).min(axis=0)
    high = np.where(inside, rows, -np.inf).max(axis=0)
    room = np.where(low == high, 0.5 * np.maximum(1.0, np.abs(low)), 0.0)
    return tuple((low - room).tolist()), tuple((high + room).tolist())


def _moments(rows: np.ndarray, inside: np.ndarray) -> ActionMoments:
    mean = rows.mean(axis=0, where=inside)
    std = rows.std(axis=0, where=inside)
    constant = std <= CONSTANT * np.maximum(1.0, np.abs(mean))
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, std).tolist())
