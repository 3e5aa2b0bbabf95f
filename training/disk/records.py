"""Records: small JSON files, sealed by a hash.

A sealed record begins with `"sha256"`: the hash of the file's bytes with zeros in place of the
hash. So it covers every bit, spaces included.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from training.disk.leftovers import written_whole
from training.errors import BadInput

SEAL = "sha256"
BLANK = b"0" * 64
HEAD = b'{\n "sha256": "'  # as json.dumps writes it; the hash follows at once


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as sealed JSON, atomically.

    Raises:
        BadInput: a value is not plain, or is NaN or infinite.
        OSError: the file cannot be written; the old one remains.
    """
    write_durably(path, sealed(values, str(path)))


def sealed(values: Mapping[str, Any], where: str) -> bytes:
    """The bytes of a sealed record; `where` is for messages."""
    if SEAL in values:
        raise BadInput(f"{where}: {SEAL!r} is the name of the seal; give the value another name")
    try:
        text = json.dumps({SEAL: BLANK.decode(), **values}, indent=1, allow_nan=False) + "\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{where}: JSON cannot hold one of its values ({error})") from error
    blank = text.encode()
    return HEAD + hashlib.sha256(blank).hexdigest().encode() + blank[len(HEAD) + len(BLANK) :]


def read_record(
    path: Path, may_lack_seal: Callable[[dict[str, Any]], bool] = lambda values: False
) -> dict[str, Any]:
    """The values of a sealed record, without the seal.

    Args:
        may_lack_seal: rule that accepts an older record without a seal. An existing seal is
            always checked.

    Raises:
        BadInput: the file is missing, damaged, lacks a required seal, or is no JSON object.
    """
    content = _content(path)
    if content.startswith(HEAD):
        rest = content[len(HEAD) + len(BLANK) :]
        digest = hashlib.sha256(HEAD + BLANK + rest).hexdigest().encode()
        if content != HEAD + digest + rest:
            raise BadInput(f"{path}: truncated or altered since it was written; use another copy")
    values = _parsed(content, path)
    if not isinstance(values, dict):
        raise BadInput(f"{path}: a JSON object is needed; is it another file?")
    if content.startswith(HEAD):
        return {key: value for key, value in values.items() if key != SEAL}
    if SEAL in values or not may_lack_seal(values):
        raise BadInput(
            f"{path}: truncated or altered, its seal is broken or gone; use another copy"
        )
    return values


def read_json(path: Path) -> Any:
    """The content of a foreign JSON file, without a seal.

    Raises:
        BadInput: the path is missing or no file, or the content is not UTF-8, not JSON, nested
            too deep, or has NaN.
    """
    return _parsed(_content(path), path)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file atomically: write a partial, sync, rename, sync the folder.

    Raises:
        OSError: it cannot be written; the old file remains.
    """
    with written_whole(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # a folder in its place, no permission, not there
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error


def _parsed(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and BadInput are ValueErrors
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise BadInput(f"{path}: truncated, altered, or no JSON ({reason})") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
