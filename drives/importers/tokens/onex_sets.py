"""Folders in which 1X publishes its recordings: one per split, side by side."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from drives.splits.base import SPLITS, default_split
from training.disk.judging import judged
from training.disk.records import read_json
from training.errors import BadInput

Settings = TypeVar("Settings")
Count = Annotated[int, Field(gt=0, le=1 << 40)]  # of frames, cells or shards: more cannot be meant


def find_sets(root: Path, marks: tuple[str, ...], wanted: str) -> list[Path]:
    """`root` if it holds one of `marks`, else the folders in it that do.

    Raises:
        BadInput: there are none; `wanted` says what to give.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; give {wanted}")
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found = [folder for folder in folders if any((folder / mark).exists() for mark in marks)]
    if not found:
        raise BadInput(f"{root}: holds no {' or '.join(marks)}; give {wanted}")
    return found[:1] if found[0] == root else found


def split_of(folder: Path, drive_id: str, index: int, count: int) -> str:
    """The split in the set's name (`val_v1.1`), or else that of its place (docs/drives.md)."""
    name = folder.resolve().name
    named = next((split for split in SPLITS if name.startswith(split)), None)
    return named or default_split(drive_id, index, count)


def read_settings(cls: type[Settings], where: Path) -> Settings:
    """The dataclass from a `metadata.json`, whose other keys are left.

    Raises:
        BadInput: the file cannot be read, or a value is missing, of another type or range.
    """
    values: Any = read_json(where)
    if not isinstance(values, dict):
        raise BadInput(f"{where}: holds no settings; copy it again")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    return judged(cls, {k: v for k, v in values.items() if k in known}, str(where))
