"""The range of each action column, from drives."""

from collections.abc import Sequence

import numpy as np

from drives.tokens.store import TokenDrive
from worldmodel.dynamics.config import ActionRanges

MAX_DRIVES = 1024  # a large store is not read whole before the first step


def action_ranges(drives: Sequence[TokenDrive], max_rows: int = 2**20) -> ActionRanges:
    """Lowest and highest action of every column without outliers: the range of its bins.

    A value is an outlier if it lies further outside the quantiles 0.1 % and 99.9 % than these are
    apart. Otherwise, one broken row would stretch the bins. A constant column gets a range around
    its value. At most `max_rows` rows of `MAX_DRIVES` drives are read, evenly spaced.
    """
    drives = drives[:: -(-len(drives) // MAX_DRIVES)]
    every = -(-sum(drive.num_steps for drive in drives) // max_rows)
    found = [drive.actions[::every] for drive in drives if not drive.damage]
    rows = np.concatenate(found or [drives[0].actions]).astype(np.float64)
    low, high = np.quantile(rows, [0.001, 0.999], axis=0)
    margin = np.where(high > low, high - low, np.inf)
    inside = (rows >= low - margin) & (rows <= high + margin)
    low = np.where(inside, rows, np.inf).min(axis=0)
    high = np.where(inside, rows, -np.inf).max(axis=0)
    room = np.where(low == high, 0.5 * np.maximum(1.0, np.abs(low)), 0.0)
    return tuple((low - room).tolist()), tuple((high + room).tolist())
