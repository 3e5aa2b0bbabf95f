"""Whether a Matroska or WebM file is whole: FFmpeg reads half of one as a shorter video."""

from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(path: Path) -> int:
    """Bytes that the file lacks by the size of its segment (RFC 9559, 4.5).

    0 for a whole file, one of another format, and a live recording, whose size is not stated.
    """
    with path.open("rb") as file:
        if _number(file, keep_mark=True) != EBML:
            return 0
        file.seek(_number(file) or 0, 1)
        if _number(file, keep_mark=True) != SEGMENT:
            return 0
        size = _number(file)
        return 0 if size is None else max(0, file.tell() + size - path.stat().st_size)


def _number(file: BinaryIO, keep_mark: bool = False) -> int | None:
    """A number of variable length (RFC 8794, 4); None: unknown, or the file ends."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    mark = 1 << 7 * length
    if keep_mark:
        return value
    return None if value == 2 * mark - 1 else value - mark
