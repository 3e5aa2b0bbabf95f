"""Output paths, checked before any work starts."""

import os
import tempfile
from pathlib import Path
from typing import Any

from training.errors import BadInput


def cache_folder() -> Path:
    """Folder of downloads and conversions: DASHCAST_CACHE, else ~/.cache/dashcast."""
    return Path(os.environ.get("DASHCAST_CACHE", "~/.cache/dashcast")).expanduser()


def writable_file(setting: str, path: Any) -> Path:
    """The output file of a setting; writes nothing.

    Raises:
        BadInput: the path is empty, is a folder, or cannot be made.
    """
    file = _named(setting, path)
    if file.is_dir():
        raise BadInput(f"{setting}={path}: is a folder; name a file")
    _check(setting, file.parent)
    return file


def writable_folder(setting: str, path: Any) -> Path:
    """The output folder of a setting, existing or not; writes nothing.

    Raises:
        BadInput: the path is empty, is a file, or is not writable.
    """
    folder = _named(setting, path)
    _check(setting, folder)
    return folder


def refuse_existing(setting: str, path: Path) -> None:
    if path.exists():
        raise BadInput(f"{setting}={path}: exists already; nothing is overwritten")


def made_folder(setting: str, path: Any) -> Path:
    """The same, and make it; BadInput also where another process's limits forbid that."""
    folder = writable_folder(setting, path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder_name(setting: str, name: Any) -> str:
    """A name that becomes one folder; writes nothing.

    Raises:
        BadInput: it is empty, hidden, or would lie in another folder.
    """
    text = str(name)
    if not text.strip() or text[0] == "." or set(text) & set("/\\\0\n$") or len(text) > 200:
        raise BadInput(
            f"{setting}: {text[:60]!r} is to name a folder; take letters, digits, dots and dashes"
        )
    return text


def _named(setting: str, path: Any) -> Path:
    if not str(path).strip():
        raise BadInput(f"{setting}={str(path)!r}: is empty; name a place")
    return Path(path)


def _check(setting: str, folder: Path) -> None:
    """Make and remove a file in the folder or in its nearest existing parent."""
    there = Path(os.path.abspath(folder))
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise BadInput(f"{setting}={folder}: {there} is a file; choose another place")
        with tempfile.NamedTemporaryFile(dir=there, prefix=".writable-"):
            pass
    except OSError as error:
        raise BadInput(
            f"{setting}={folder}: nothing can be written in {there} ({error.strerror}); choose "
            "another place"
        ) from error
