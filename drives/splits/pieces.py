"""Pieces: the split of every frame of every drive, in a readable file.

    {"rule": {...}, "drives": {"lake": [{"split": "train", "start": 0, "stop": 800}, ...], ...}}

Frames in no piece are unused, which leaves gaps. A drive without pieces is left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from drives.splits.base import ROADS, SPLITS
from training.disk.judging import judged
from training.disk.records import read_json, write_durably
from training.errors import BadInput
from training.ranges import one_of


@dataclass(frozen=True)
class Piece:
    """Frames `start <= i < stop` of a drive.

    Attributes:
        roads: "seen" or "unseen" in training, if a rule found out.
    """

    split: str
    start: int
    stop: int
    roads: str = ""

    def __post_init__(self) -> None:
        one_of(SPLITS, split=self.split)
        one_of(ROADS, roads=self.roads)
        if not 0 <= self.start < self.stop:
            raise BadInput(f"start={self.start} stop={self.stop}: give 0 <= start < stop")


@dataclass(frozen=True)
class SplitFile:
    """The content of a file of splits.

    Attributes:
        rule: the rule that made it.
        drives: pieces of every drive, in order, without overlaps.
    """

    drives: dict[str, tuple[Piece, ...]]
    rule: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, pieces in self.drives.items():
            for before, after in pairwise(pieces):
                if after.start < before.stop:
                    raise BadInput(
                        f"{name}: pieces {before.start}-{before.stop} and {after.start}-"
                        f"{after.stop} overlap or are out of order; a frame is in one split"
                    )

    def of(self, drive: str, num_frames: int, where: Path) -> Sequence[Piece]:
        """The pieces of a drive.

        Raises:
            BadInput: it is not in the file, or shorter than its pieces.
        """
        if drive not in self.drives:
            raise BadInput(
                f"{where}: says nothing of drive {drive}; make it again (python -m drives.splits), "
                f'or leave the drive out: "{drive}": []'
            )
        pieces = self.drives[drive]
        if pieces and pieces[-1].stop > num_frames:
            raise BadInput(
                f"{where}: drive {drive} goes to frame {pieces[-1].stop}, it has {num_frames}; "
                "make the file again (python -m drives.splits)"
            )
        return pieces


def read_splits(path: Path) -> SplitFile:
    """Read a file of splits; BadInput where it is none or has an impossible value."""
    return judged(SplitFile, read_json(path), str(path))


def write_splits(
    path: Path, drives: Mapping[str, Sequence[Piece]], rule: Mapping[str, Any]
) -> None:
    """Write the file; BadInput where there is one."""
    if path.exists():
        raise BadInput(f"{path}: exists already; nothing is overwritten, choose another name")
    lines = [
        f"  {json.dumps(name)}: [{', '.join(json.dumps(_plain(piece)) for piece in pieces)}]"
        for name, pieces in sorted(drives.items())
    ]
    text = f' "rule": {json.dumps(dict(rule))},\n "drives": {{\n' + ",\n".join(lines) + "\n }"
    write_durably(path, f"{{\n{text}\n}}\n".encode())


def _plain(piece: Piece) -> dict[str, Any]:
    return {key: value for key, value in asdict(piece).items() if value != ""}
