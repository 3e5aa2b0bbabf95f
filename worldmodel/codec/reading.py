"""Reads containers: every record is checked, and what is whole is found behind damage."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.disk.judging import judged
from training.errors import BadInput, first_line
from worldmodel.codec.container import (
    DIGEST,
    END,
    LEAD,
    MAGIC,
    MAX_HEADER,
    SCHEMA,
    SEGMENT,
    CodedSegment,
    EndAbout,
    Header,
    SegmentAbout,
    digest_of,
)


@dataclass(frozen=True)
class Found:
    """What lies in a container.

    Attributes:
        segments, ends: the whole ones and where each ends, by their numbers.
        damage: what is wrong; empty for a whole container.
        code_bytes, action_bytes: of the whole segments.
    """

    segments: dict[int, SegmentAbout]
    ends: dict[int, int]
    damage: tuple[str, ...]
    code_bytes: int
    action_bytes: int


def read_header(path: Path) -> tuple[Header, int]:
    """The header, and where it ends.

    Raises:
        BadInput: no container, a newer schema, or a damaged header.
    """
    try:
        with path.open("rb") as file:
            lead = file.read(len(MAGIC) + 4)
            if lead[: len(MAGIC)] != MAGIC or len(lead) < len(MAGIC) + 4:
                raise BadInput(f"{path}: is no container of this codec; name what compress wrote")
            (length,) = struct.unpack("<I", lead[len(MAGIC) :])
            text = file.read(length) if length <= MAX_HEADER else b""
            key = file.read(DIGEST)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    if digest_of(MAGIC, text) != key:
        raise BadInput(
            f"{path}: its header is truncated or altered, and nothing can be decoded without it; "
            "use another copy"
        )
    try:
        values = json.loads(text)
        schema = values.get("schema")
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path}: its header is no JSON object ({first_line(error)})") from error
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadInput(
            f"{path}: has schema {schema}, of a newer release; this one reads up to {SCHEMA}: "
            "install that release"
        )
    return judged(Header, values, f"{path}: header"), len(MAGIC) + 4 + length + DIGEST


def examine(path: Path) -> Found:
    """Check every record of a container; reads the file once, decodes nothing.

    Raises:
        BadInput: as `read_header`.
    """
    segments: dict[int, SegmentAbout] = {}
    ends: dict[int, int] = {}
    damage: list[str] = []
    ended, code, actions = False, 0, 0
    for number, found, end in _records(path):
        if isinstance(found, CodedSegment):
            segments[number], ends[number] = found.about, end
            code, actions = code + len(found.code), actions + len(found.actions)
        elif isinstance(found, EndAbout):
            ended = found.segments == number
        else:
            damage.append(found)
    if not ended:
        last = segments[max(segments)].name if segments else "none"
        damage.append(f"it is truncated; the last whole segment: {last}")
    return Found(segments, ends, tuple(damage), code, actions)


def segments_of(path: Path) -> Iterator[tuple[int, CodedSegment]]:
    """The whole segments with their numbers; damaged ones are passed over."""
    for number, found, _ in _records(path):
        if isinstance(found, CodedSegment):
            yield number, found


def _records(path: Path) -> Iterator[tuple[int, CodedSegment | EndAbout | str, int]]:
    """Number, content and end of every record: a segment, the end, or damage."""
    place = read_header(path)[1]
    size, number, broken = path.stat().st_size, 0, -1
    with path.open("rb") as file:
        file.seek(place - DIGEST)
        key = file.read(DIGEST)
        while place < size:
            marker, content, stop = _record_at(file, place, size)
            found = None if content is None else _number(content, key, number)
            if content is None or found is None:
                broken = place if broken < 0 else broken
                place = _next_marker(file, place + 1, size)
                continue
            if broken >= 0 or found > number:
                yield number, _lost(broken, place, number, found), place
            yield found, _content(marker, content[:-DIGEST], path), stop
            number, place, broken = found + 1, stop, -1
    if broken >= 0:
        yield number, f"bytes {broken} to {size - 1} are altered or cut: segment {number}", size


def _lost(broken: int, place: int, number: int, found: int) -> str:
    where = f"bytes {broken} to {place - 1} are altered" if broken >= 0 else "bytes are missing"
    lost = f"segments {number} to {found - 1}" if found > number else "no segment is lost"
    return f"{where} before byte {place}: {lost}"


def _number(content: bytes, key: bytes, number: int) -> int | None:
    """The number of a record, `number` or more; None where its seal is broken."""
    if digest_of(key, content[:-DIGEST]) != content[-DIGEST:]:
        return None
    own: int = LEAD.unpack_from(content, len(SEGMENT))[0]
    return own if own >= number else None


def _record_at(file: IO[bytes], place: int, size: int) -> tuple[bytes, bytes | None, int]:
    """Marker, bytes and end of the record at `place`; None where there is none."""
    file.seek(place)
    head = file.read(len(SEGMENT) + LEAD.size)
    marker = head[: len(SEGMENT)]
    if marker not in (SEGMENT, END) or len(head) < len(SEGMENT) + LEAD.size:
        return marker, None, place
    length = sum(LEAD.unpack(head[len(SEGMENT) :])[1:]) + DIGEST
    stop = place + len(head) + length
    return marker, (head + file.read(length) if stop <= size else None), stop


def _content(marker: bytes, record: bytes, path: Path) -> CodedSegment | EndAbout:
    """What a record with a right digest holds."""
    start = len(SEGMENT) + LEAD.size
    _, about, code, _ = LEAD.unpack(record[len(SEGMENT) : start])
    try:
        values = json.loads(record[start : start + about])
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: a record is no JSON object ({first_line(error)})") from error
    if marker == END:
        return judged(EndAbout, values, f"{path}: end")
    rest = record[start + about :]
    return CodedSegment(judged(SegmentAbout, values, f"{path}: segment"), rest[:code], rest[code:])


def _next_marker(file: IO[bytes], place: int, size: int) -> int:
    """Where the next marker stands; `size` where there is none."""
    step, overlap = 2**20, len(SEGMENT) - 1
    while place < size:
        file.seek(place)
        piece = file.read(step + overlap)
        hits = [at for marker in (SEGMENT, END) if (at := piece.find(marker)) >= 0]
        if hits:
            return place + min(hits)
        place += step
    return size
