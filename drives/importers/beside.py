"""What lies beside frames: their table, the files of our own drives, others of their name."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from training.errors import BadInput

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
LEAVE_OUT = "leave it out (--on-bad=skip), or leave out all tables (--frames-alone)"


def table_at(stems: Iterable[Path]) -> Path | None:
    """The first table among these paths without their endings."""
    paths = (stem.with_name(stem.name + suffix) for stem in stems for suffix in TABLE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def stray_tables(folder: Path, suffixes: Sequence[str] = ()) -> list[str]:
    """Names of tables in a folder that are of none of its files with these endings."""
    files = list(folder.glob("[!.]*"))
    owned = {path.stem for path in files if path.suffix.lower() in suffixes}
    return sorted(
        path.name
        for path in files
        if path.suffix.lower() in (".csv", ".parquet") and path.stem not in owned
    )


def say_no_table(frames: Path, table: Path, stray: Sequence[str], needed: bool) -> None:
    """Tell that frames are alone.

    Args:
        frames: their video or folder, for messages.
        table: where theirs would be.
        stray: as `stray_tables` finds them there.
        needed: other frames of the folder have a table.

    Raises:
        BadInput: `needed`, or a table lies there that belongs to nothing.
    """
    if needed:
        raise BadInput(
            f"{frames}: no {table.name} beside it, and others here have a table; {LEAVE_OUT}"
        )
    if stray:
        raise BadInput(
            f"{frames}: no {table.name} beside it, but {stray[0]}, which is of no video; give it "
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
    given = Counter(names.values())
    return {
        place: name if given[name] == 1 else "-".join([*place.relative_to(root).parts[:-1], name])
        for place, name in names.items()
    }
