"""Versions of train drives that are encoded beside them: later phases, and mirrored.

Where every N-th frame is kept, a train drive makes N drives, its phases, each frame in one of
them. Phase 0 is the drive as it is; phase p begins p frames later, and its id ends with `@pofN`.
Mirrored, left and right change places: in the frames, and as signs of the columns that point to a
side. Its id ends with `@mirrored`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from drives.actions.sides import mirrored_signs
from drives.drive import Drive
from drives.video.rate import Sampled

VERSION = re.compile(r"(@\d+of\d+)?(@mirrored)?$")


def versions_of(
    drives: Sequence[Drive],
    names: Sequence[str],
    every: int = 1,
    phases: str = "first",
    mirrored: bool = False,
) -> list[Drive]:
    """The drives to encode: each, and the versions of each train drive.

    Drives of val and test stay as they are, so that scores do not depend on the versions.

    Args:
        names: the columns that will be read.
        every: N, of every N-th frame.
        phases: "all": the N phases; "first": phase 0 alone.
        mirrored: whether each of these comes mirrored as well.

    Raises:
        BadInput: nobody knows what becomes of a column in a mirror.
    """
    signs = mirrored_signs(names) if mirrored else {}
    versions = []
    for drive in drives:
        train = drive.split == "train"
        found = list(_phases(drive, every)) if train and phases == "all" else [drive]
        versions += found + ([_mirrored(one, signs) for one in found] if train and mirrored else [])
    return versions


def recording_of(drive_id: str) -> str:
    """The id of the drive that a version is of; any other id is returned as it is."""
    return VERSION.sub("", drive_id)


def _phases(drive: Drive, every: int) -> Iterator[Drive]:
    yield drive
    count, drops = len(drive.actions), drive.drops if every > 1 else []
    picks = np.arange(count) if drive.sampled is None else drive.sampled.picks
    for first in range(1, min(every, count)):
        moved = (drop._replace(after_frame=drop.after_frame - first) for drop in drops)
        kept = tuple(drop for drop in moved if drop.after_frame >= 0)
        yield replace(
            drive,
            actions=drive.actions[first:],
            sampled=Sampled(picks[first:], kept),
            version=f"@{first}of{every}",
        )


def _mirrored(drive: Drive, signs: dict[str, float]) -> Drive:
    turned = drive.actions * np.array(
        [signs.get(name, 1.0) for name in drive.action_names], np.float32
    )
    return replace(drive, actions=turned, version=f"{drive.version}@mirrored", mirrored=True)
