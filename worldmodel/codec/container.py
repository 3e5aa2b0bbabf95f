"""The file of the codec: a header, segments that stand alone, an end.

    "dashcast codec\n", length, header (JSON), digest
    marker, number, lengths, about (JSON), code, actions, digest        (of every segment)
    marker, number, lengths, about (JSON), digest                       (the end)

A digest is a BLAKE2b of 16 bytes over the header's digest and the record. So a record of another
file is as wrong as an altered one. Numbers are unsigned 64-bit integers, lengths unsigned 32-bit
integers, little-endian.
"""

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from training.ranges import at_least, within

MAGIC = b"dashcast codec\n"
SCHEMA = 1
SEGMENT, END = b"\xd5segment", b"\xd5the end"
LEAD = struct.Struct("<QIII")  # number, lengths
DIGEST = 16
MAX_HEADER = 2**24
MAX_STEPS = 2**31  # of a segment


@dataclass(frozen=True, kw_only=True)
class Header:
    """What decoding needs to know, besides the models.

    Attributes:
        schema: of the container.
        source: "store", or "npy" with its dtype and shape.
        spec: the `TokenSpec`.
        action_names: columns of the actions that are kept.
        predictors: each with its name; a model with its hash and the decoding.
        arithmetic: "exact", with its version, or "float".
        machine: where "float" decodes.
        segment_steps, parallel: as in `CodecConfig`.
        coder: the entropy coder.
    """

    schema: int
    source: dict[str, Any]
    spec: dict[str, Any]
    action_names: tuple[str, ...]
    predictors: tuple[dict[str, Any], ...]
    arithmetic: str
    machine: dict[str, str] = field(default_factory=dict)
    segment_steps: int
    parallel: int
    coder: str

    def __post_init__(self) -> None:
        at_least(1, schema=self.schema, segment_steps=self.segment_steps, parallel=self.parallel)


@dataclass(frozen=True, kw_only=True)
class SegmentAbout:
    """What a segment holds.

    Attributes:
        drive, split: whose steps; "" for a file without drives.
        first, steps: which of them.
        tokens: BLAKE2b of the tokens.
        bits: cross entropy of the tokens in bits, under the scoring that coded them.
        meta: the drive's own metadata; with its first segment.
    """

    drive: str
    split: str
    first: int
    steps: int
    tokens: str
    bits: float
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, first=self.first)
        within(1, MAX_STEPS, steps=self.steps)

    @property
    def name(self) -> str:
        steps = f"steps {self.first} to {self.first + self.steps - 1}"
        return f"{self.drive}, {steps}" if self.drive else steps


@dataclass(frozen=True)
class EndAbout:
    """What the last record says: the number of segments before it."""

    segments: int


@dataclass(frozen=True)
class CodedSegment:
    """A segment of a container: its tokens' code, and its actions."""

    about: SegmentAbout
    code: bytes
    actions: bytes = b""


def digest_of(*parts: bytes) -> bytes:
    total = hashlib.blake2b(digest_size=DIGEST)
    for part in parts:
        total.update(part)
    return total.digest()


class ContainerWriter:
    """Writes records one after the other; each is on the disk when its call returns.

    Args:
        file: open for writing, at its start or behind `done` segments of the same header.
    """

    def __init__(self, file: IO[bytes], header: Header, done: int = 0) -> None:
        self.file, self.number = file, done
        text = encoded(header)
        self.key = digest_of(MAGIC, text)
        if not done:
            self._put(MAGIC + struct.pack("<I", len(text)) + text + self.key)

    def add(self, segment: CodedSegment) -> None:
        self._record(SEGMENT, encoded(segment.about), segment.code, segment.actions)

    def end(self) -> None:
        """The last record; without it, the file is known to be truncated."""
        self._record(END, encoded(EndAbout(segments=self.number)), b"", b"")

    def _record(self, marker: bytes, about: bytes, code: bytes, actions: bytes) -> None:
        lead = LEAD.pack(self.number, len(about), len(code), len(actions))
        record = marker + lead + about + code + actions
        self._put(record + digest_of(self.key, record))
        self.number += 1

    def _put(self, content: bytes) -> None:
        self.file.write(content)
        self.file.flush()
        os.fsync(self.file.fileno())


def encoded(record: Header | SegmentAbout | EndAbout) -> bytes:
    return json.dumps(asdict(record), allow_nan=False).encode()
