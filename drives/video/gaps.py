"""Dropped frames: gaps in the time stamps or the file numbers of a drive's frames."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from drives.video.index import time_stamps
from training.errors import BadInput

TIME_COLUMNS = ("time_s", "timestamp_s")
DROPPED = "dropped_frames"  # in drive.json: pairs (frame before a gap, number of missing frames)


class Drop(NamedTuple):
    """Number of missing frames and the frame before."""

    after_frame: int
    num_missing: int


def find_drops(source: Path | Sequence[Path]) -> list[Drop]:
    """Gaps in the time stamps of a video, or in the numbers in image file names.

    A video without time stamps, and images without numbers, have no gaps.

    Raises:
        BadInput: the video cannot be read.
    """
    if isinstance(source, Path):
        stamps = time_stamps(source)
        return [] if stamps is None else holes(stamps)
    numbers = [re.search(r"(\d+)$", path.stem) for path in source]
    found = [int(number[1]) for number in numbers if number]
    return holes(np.array(found)) if len(found) == len(source) else []


def read_drops(meta: Mapping[str, Any], where: str) -> list[Drop] | None:
    """Gaps as drive.json states them, if it does; BadInput for anything but pairs of numbers."""
    if DROPPED not in meta:
        return None
    entries = meta[DROPPED]
    pairs: list[Any] = entries if isinstance(entries, list) else [entries]
    for pair in pairs:
        fits = isinstance(pair, list) and [type(number) for number in pair] == [int, int]
        if not fits or pair[0] < 0 or pair[1] < 1:
            raise BadInput(
                f"{where}: {DROPPED} holds {pair!r}; give pairs [frame before the gap, number of "
                "missing frames]"
            )
    return [Drop(after, missing) for after, missing in pairs]


def holes(times: Num[np.ndarray, " frame"]) -> list[Drop]:
    """Places where the step to the next time is at least 1.5 times the median step."""
    gaps = np.diff(times)
    if len(gaps) < 2 or (gaps <= 0).any():
        return []
    missing = np.floor(gaps / np.median(gaps) + 0.5).astype(int) - 1
    return [Drop(int(i), int(missing[i])) for i in np.flatnonzero(missing > 0)]


def describe(drops: Sequence[Drop]) -> str:
    """ "5 frames are missing: 3 after frame 41, 2 after frame 90"; at most five places."""
    total = sum(drop.num_missing for drop in drops)
    places = [f"{drop.num_missing} after frame {drop.after_frame}" for drop in drops[:5]]
    more = [f"and {len(drops) - 5} more holes"] if len(drops) > 5 else []
    return f"{total} frame{'s are' if total > 1 else ' is'} missing: {', '.join(places + more)}"
