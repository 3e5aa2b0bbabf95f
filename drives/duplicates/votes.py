"""Votes: pairs of samples that look alike agree on one shift in time.

Two laps of a road look alike here and there, a copy at one shift, sample after sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from drives.duplicates.keys import keys_of, pairs_of
from drives.duplicates.prints import Print
from drives.splits.base import SPLITS

BLOCK_S = 4.0  # of the later split's drive, compared at once
SHIFT_S = 0.2
FEWEST = 3  # samples that agree
MOST = 4  # shifts to judge, per block
SECONDS, FRAMES = "seconds", "frames"


class Guess(NamedTuple):
    """Block `block` of drive `b` may show drive `a` from `shift_s` later on.

    Attributes:
        a, b: places of the prints.
        clock: SECONDS, or FRAMES where both align frame by frame, whatever their rates.
    """

    a: int
    b: int
    block: int
    shift_s: float
    clock: str


def guesses_of(prints: Sequence[Print]) -> list[Guess]:
    """The guesses that samples of different splits vote for, block after block."""
    lengths = [len(one.pictures) for one in prints]
    drive = np.repeat(np.arange(len(prints)), lengths)
    splits = np.repeat([SPLITS.index(one.footage.split) for one in prints], lengths)
    pairs = _unique_pairs(keys_of(prints), splits)
    clocks = {SECONDS: np.concatenate([one.seconds for one in prints])}
    if len({one.fps for one in prints}) > 1:
        clocks[FRAMES] = np.concatenate([one.frames for one in prints])
    return [guess for clock in clocks for guess in _counted(pairs, drive, clocks[clock], clock)]


def _unique_pairs(
    keys: np.ndarray, splits: Int[np.ndarray, " sample"]
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Pairs with any key in common, once each."""
    total = len(splits)
    found = [a * total + b for row in keys for a, b in pairs_of(row, splits)]
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return pairs // total, pairs % total


def _counted(
    pairs: tuple[np.ndarray, np.ndarray],
    drive: Int[np.ndarray, " sample"],
    times: Float[np.ndarray, " sample"],
    clock: str,
) -> list[Guess]:
    first, second = pairs
    if not len(first):
        return []
    a, b = drive[first], drive[second]
    block = (times[second] / BLOCK_S).astype(np.int64)
    bins = np.floor((times[first] - times[second]) / SHIFT_S).astype(np.int64)
    # Bins overlap and a pair votes for two, or a shift on an edge would lose half of its votes.
    columns = np.stack([np.tile(x, 2) for x in (b, block, a)] + [np.r_[bins, bins - 1]], axis=1)
    choices, votes = _count_rows(columns)
    choices, votes = choices[votes >= FEWEST], votes[votes >= FEWEST]
    order = np.lexsort((-votes, choices[:, 1], choices[:, 0]))
    choices = choices[order]
    place = np.flatnonzero(np.r_[True, (np.diff(choices[:, :2], axis=0) != 0).any(1)][: len(order)])
    rank = np.arange(len(order)) - np.repeat(place, np.diff(np.r_[place, len(order)]))
    return [
        Guess(int(at[2]), int(at[0]), int(at[1]), float((at[3] + 1) * SHIFT_S), clock)
        for at in choices[rank < MOST]
    ]


def _count_rows(rows: Int[np.ndarray, "row column"]) -> tuple[np.ndarray, np.ndarray]:
    """Different rows and how often each stands there."""
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(rows, axis=0) != 0).any(1)])
    return rows[starts], np.diff(np.r_[starts, len(rows)])
