"""Phases: where every N-th frame is kept, a train drive makes N drives, each frame in one of them.

Phase 0 is the drive as it is. Phase p begins p frames later, and its id ends with `@pofN`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from drives.drive import Drive
from drives.video.rate import Sampled

PHASE = re.compile(r"@\d+of\d+$")


def phases_of(drives: Sequence[Drive], every: int, phases: str) -> list[Drive]:
    """The drives to encode: with `phases` "all", the N phases of each train drive.

    Drives of val and test stay as they are, so that scores do not depend on `phases`.

    Args:
        every: N, of every N-th frame.
    """
    if phases == "first":
        return list(drives)
    return [phase for drive in drives for phase in _phases(drive, every)]


def recording_of(drive_id: str) -> str:
    """The id of the drive that a phase is of; any other id is returned as it is."""
    return PHASE.sub("", drive_id)


def _phases(drive: Drive, every: int) -> Iterator[Drive]:
    yield drive
    if drive.split != "train":
        return
    count, drops = len(drive.actions), drive.drops if every > 1 else []
    picks = np.arange(count) if drive.sampled is None else drive.sampled.picks
    for first in range(1, min(every, count)):
        moved = (drop._replace(after_frame=drop.after_frame - first) for drop in drops)
        kept = tuple(drop for drop in moved if drop.after_frame >= 0)
        yield replace(
            drive,
            actions=drive.actions[first:],
            sampled=Sampled(picks[first:], kept),
            phase=f"@{first}of{every}",
        )
