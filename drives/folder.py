"""A folder of drives: every drive in it, opened, each with a split."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from drives.config import existing_root
from drives.drive import Drive, open_drive
from drives.splits.base import default_split, is_in
from drives.splits.pieces import read_splits
from drives.video.rate import describe_rate, same_rate
from training.errors import BadInput


def open_drives(
    root: Path,
    action_names: Sequence[str] | None = None,
    needed: str = "train",
    splits: Path | None = None,
) -> list[Drive]:
    """Open every drive below `root`, sorted by id, each with a split.

    A drive without a split in `drive.json` gets one from a hash of its id (80 / 10 / 10).
    Where no drive has a split and there are fewer than ten, the last drive is test, the one
    before it val (of three or more), and the others train.

    Args:
        splits: a file of `python -m drives.splits`, which then alone decides the splits.

    Raises:
        BadInput: there are no drives, one is unusable, or none is in the split `needed`.
    """
    drives = open_folders(root, action_names)
    if splits is None:
        return assign_splits(drives, needed)
    file = read_splits(splits)
    pieces = [d.piece(p) for d in drives for p in file.of(d.id, len(d.actions), splits)]
    return _with_split(pieces, needed, str(splits))


def open_folders(root: Path, action_names: Sequence[str] | None = None) -> list[Drive]:
    """Every drive below `root`, sorted by id, with the split in its `drive.json` or none."""
    if not existing_root(root).is_dir():
        raise BadInput(f"data.root={root}: is a file; see docs/drives.md for the layout of drives")
    # Names with a leading dot are unfinished drives.
    paths = sorted(p for p in root.glob("[!.]*") if os.path.lexists(p / "drive.json"))
    if not paths:
        raise BadInput(
            f"data.root={root}: holds no drives (no */drive.json); see docs/drives.md "
            "for the layout and `python -m drives.importers` to make one"
        )
    return [open_drive(path, action_names) for path in paths]


def at_one_rate(drives: list[Drive], fps: float | None) -> list[Drive]:
    """The drives at `fps`; None: as they are.

    Raises:
        BadInput: a drive has too few frames for `fps`; without it, a drive's rate varies.
    """
    if fps is not None:
        return [drive.at_fps(fps) for drive in drives]
    varying = next((drive for drive in drives if drive.rate_varies), None)
    if varying is not None:
        raise BadInput(
            f"{varying.path}: {describe_rate(varying.frame_times_s)}, so no fps is true; give "
            "data.source.fps=N to resample the drives to one rate"
        )
    return drives


def common_rate(drives: Sequence[Drive]) -> float:
    """Frames per second of all drives, which may differ by `SAME_RATE`: then the middle one.

    Raises:
        BadInput: they have several rates.
    """
    slow, fast = (choose(drives, key=lambda drive: drive.fps) for choose in (min, max))
    if not same_rate(slow.fps, fast.fps):
        raise BadInput(
            f"{slow.path} has {slow.fps:g} fps and {fast.path} has {fast.fps:g}; one training set "
            f"has one rate: give data.source.fps={slow.fps:g} to resample the drives"
        )
    return statistics.median_low(drive.fps for drive in drives)


def assign_splits(drives: list[Drive], needed: str = "train") -> list[Drive]:
    # Positions mean nothing where some drives name a split.
    count = len(drives) if all(drive.split is None for drive in drives) else None
    result = [
        replace(drive, split=drive.split or default_split(drive.id, index, count))
        for index, drive in enumerate(drives)
    ]
    return _with_split(result, needed, str(drives[0].path.parent))


def _with_split(drives: list[Drive], needed: str, where: str) -> list[Drive]:
    if not any(is_in(drive, needed) for drive in drives):
        raise BadInput(
            f"{where}: none of the {len(drives)} drives is in the {needed} split; "
            f'set "split": "{needed}" in a drive.json'
        )
    return drives
