"""What lies beside frames: their table, the files of our own drives, others of their name."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.errors import BadInput

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
LEAVE_OUT = "leave it out (--on-bad=skip), or leave out all tables (--frames-alone)"


def table_at(stems: Iterable[Path]) -> Path | None:
    """The first table among these paths without their endings."""
    paths = (stem.with_name(stem.name + suffix) for stem in stems for suffix in TABLE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def say_no_table(frames: Path, table: Path, others: Iterable[str], needed: bool) -> None:
    """Tell that frames are alone.

    Args:
        frames: their video or folder, for messages.
        table: where theirs would be.
        others: stems of tables there that belong to other frames.
        needed: other frames of the folder have a table.

    Raises:
        BadInput: `needed`, or a table lies there that belongs to nothing.
    """
    if needed:
        raise BadInput(
            f"{frames}: no {table.name} beside it, and others here have a table; {LEAVE_OUT}"
        )
    owned = set(others)
    lost = sorted(
        path.name
        for path in table.parent.glob("[!.]*")
        if path.suffix.lower() in (".csv", ".parquet") and path.stem not in owned
    )
    if lost:
        raise BadInput(
            f"{frames}: no {table.name} beside it, but {lost[0]}, which is of no video; give it "
            f"that name, {LEAVE_OUT}"
        )
    logger.warning("%s: no %s beside it; it becomes frames alone", frames, table.name)


def without_drives(root: Path, holders: Mapping[Path, Path]) -> list[Path]:
    """The frames that are of no drive of ours, so that an import does not read what it wrote.

    Args:
        root: where they were sought, for the message.
        holders: by the video or the folder of images: the folder that would hold `drive.json`.

    Raises:
        BadInput: all of them are of drives.
    """
    ours = {folder for folder in set(holders.values()) if (folder / "drive.json").is_file()}
    found = [frames for frames, folder in holders.items() if folder not in ours]
    if holders and not found:
        raise BadInput(
            f"{root}: these are drives already ({min(ours).resolve().name}/drive.json); use "
            "them as they are, or give the folder of the recordings"
        )
    return found


def told_apart(root: Path, names: Mapping[Path, str]) -> dict[Path, str]:
    """Names of recordings; those of one name get their folders below `root` in front.

    Args:
        names: by the file or folder that bears the name.
    """
    given = list(names.values())
    return {
        place: name
        if given.count(name) == 1
        else "-".join([*place.relative_to(root).parts[:-1], name])
        for place, name in names.items()
    }
