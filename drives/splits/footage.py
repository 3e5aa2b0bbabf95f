"""Footage: the recorded frames of a drive, by content.

An entry is the beginning of a sha256, with `:start-stop` for a piece of a recording. It does not
depend on name, split or dates, so a renamed copy is the same footage.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from drives.splits.base import SPLITS, validates_on
from training.errors import BadInput

DIGITS = 16
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Footage:
    """The footage of one drive.

    Attributes:
        drive: its id.
        content: the entry, as above.
        roads: "seen" or "unseen" in training, if known.
    """

    drive: str
    split: str
    content: str
    licence: str = UNKNOWN
    roads: str = ""


class Frames(NamedTuple):
    """Frames `start <= i < stop` of a recording; `stop` None means all of it."""

    recording: str
    start: int = 0
    stop: int | None = None

    def overlap(self, other: "Frames") -> bool:
        """Whether both show a common frame."""
        ours = self.stop is None or other.start < self.stop
        theirs = other.stop is None or self.start < other.stop
        return self.recording == other.recording and ours and theirs


def content_entry(sha256: str, start: int = 0, stop: int | None = None) -> str:
    """The entry of a recording, or of the piece `start <= i < stop` of it."""
    return sha256[:DIGITS] + ("" if stop is None else f":{start}-{stop}")


def read_entry(entry: str) -> Frames:
    """Parse an entry; BadInput where it is none."""
    recording, _, span = entry.partition(":")
    start, _, stop = span.partition("-")
    if not recording or (span and not (start.isdecimal() and stop.isdecimal())):
        raise BadInput(f"{entry!r}: is no footage; it is written as SHA256 or SHA256:START-STOP")
    return Frames(recording, int(start), int(stop)) if span else Frames(recording)


def shown_in(footage: Iterable[Footage], entries: Iterable[str]) -> list[str]:
    """Ids of drives that show a frame of an entry."""
    known: dict[str, list[Frames]] = defaultdict(list)
    for entry in entries:
        known[read_entry(entry).recording].append(read_entry(entry))
    found = []
    for one in footage:
        frames = read_entry(one.content)
        if any(frames.overlap(other) for other in known[frames.recording]):
            found.append(one.drive)
    return found


def split_facts(footage: Sequence[Footage]) -> dict[str, Any]:
    """Facts about data and split for the manifest of a checkpoint.

    `train_footage` has an entry for every train drive; evaluations compare their clips with it.
    """
    splits = Counter(one.split for one in footage)
    pairs = sorted([one.content, one.split] for one in footage)
    return {
        "split_hash": hashlib.sha256(json.dumps(pairs).encode()).hexdigest(),
        "num_drives": {split: splits[split] for split in SPLITS if splits[split]},
        "validated_on": validates_on(footage),
        "licences": dict(sorted(Counter(one.licence for one in footage).items())),
        "train_footage": sorted(one.content for one in footage if one.split == "train"),
    }
