"""What lies at a path: drives, a token store, or recordings of a foreign format, opened alike."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from drives.actions.statistics import ActionStatistics
from drives.drive import Drive, open_drive
from drives.duplicates.sheet import tokens_of
from drives.importers.formats import RECORDING_FORMATS, TOKEN_FORMATS, recognised
from drives.importers.recording import Recording
from drives.tokens.drive import TokenDrive
from drives.tokens.manifest import MANIFEST
from drives.tokens.statistics import noted_statistics
from drives.tokens.store import TokenStore
from drives.video.gaps import Drop
from drives.video.rate import describe_rate
from training.errors import BadInput

DRIVES, STORE = "drives", "token store"
Frames = Iterator[UInt8[np.ndarray, "height width 3"]]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Take:
    """One recording, whatever it lies in.

    Attributes:
        size: (height, width) in pixels.
        read: frames start <= i < stop; of tokens, a colour per token.
    """

    id: str
    split: str | None
    fps: float
    size: tuple[int, int]
    names: tuple[str, ...]
    actions: Float[np.ndarray, "frame action"] = field(repr=False)
    drops: Sequence[Drop] = field(repr=False)
    read: Callable[[int, int], Frames] = field(repr=False)

    @property
    def num_frames(self) -> int:
        return len(self.actions)

    def column(self, name: str) -> Float[np.ndarray, " frame"]:
        return self.actions[:, self.names.index(name)]


@dataclass
class Opened:
    """What lies at a path.

    Attributes:
        kind: `DRIVES`, `STORE`, or the name of a foreign format.
        text: what that is, in a few words.
        num_found: recordings there; `takes` are those that were read, evenly chosen.
        problems: why some cannot be used.
        has_pixels: whether `Take.read` gives what a camera saw.
        noted: statistics of all train drives, where a store knows them.
    """

    kind: str
    text: str
    num_found: int = 0
    takes: list[Take] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    has_pixels: bool = True
    noted: ActionStatistics | None = None


def open_path(path: Path, most: int, fps: float | None = None) -> Opened:
    """Open at most `most` recordings; one that cannot be used becomes a problem.

    Args:
        fps: what an importer would be told of a format that does not say its rate, or varies.

    Raises:
        BadInput: nothing that is known lies there.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    if (path / "drive.json").exists():
        return _open_drives([path], most)
    if _is_store(path / MANIFEST):
        return _open_store(path, most)
    folders = sorted(file.parent for file in path.glob("[!.]*/drive.json"))
    if folders:
        return _open_drives(folders, most)
    format = recognised(path)
    if format is not None and format in RECORDING_FORMATS:
        return _open_recordings(path, format, most, fps)
    if format is not None:
        spec, names = TOKEN_FORMATS[format].plan(path)
        text = f"{TOKEN_FORMATS[format].text}: grid {spec.grid}, {spec.fps:g} fps, "
        return Opened(format, text + f"actions {', '.join(names) or 'none'}", has_pixels=False)
    known = ", ".join((*RECORDING_FORMATS, *TOKEN_FORMATS))
    raise BadInput(f"{path}: holds no drives, no token store, and none of the formats {known}")


def evenly(entries: Sequence[Entry], most: int) -> list[Entry]:
    """At most `most` of the entries, the first and the last among them."""
    count = min(most, len(entries))
    return [entries[round(place)] for place in np.linspace(0, len(entries) - 1, count).tolist()]


def _is_store(manifest: Path) -> bool:
    try:
        values = json.loads(manifest.read_bytes())
    except (OSError, ValueError):  # no manifest, or that of another format
        return False
    return isinstance(values, dict) and "schema_version" in values


def _open_drives(folders: Sequence[Path], most: int) -> Opened:
    opened = Opened(DRIVES, "drives of dashcast", len(folders))
    for folder in evenly(folders, most):
        try:
            drive = open_drive(folder)
            opened.takes.append(_of_drive(drive))
        except BadInput as error:
            opened.problems.append(str(error))
            continue
        if drive.rate_varies:
            varies = describe_rate(drive.frame_times_s)
            opened.problems.append(f"{folder}: {varies}; train with data.source.fps=N")
    return opened


def _of_drive(drive: Drive) -> Take:
    return Take(
        *(drive.id, drive.split, drive.fps, drive.frame_size, drive.action_names, drive.actions),
        drops=drive.drops,
        read=drive.frames,
    )


def _open_recordings(path: Path, format: str, most: int, fps: float | None) -> Opened:
    recorded = RECORDING_FORMATS[format]
    takes_fps = "fps" in recorded.options.__dataclass_fields__
    told: dict[str, Any] = {"fps": fps} if fps is not None and takes_fps else {}
    candidates = recorded.find(path, recorded.options(**told))
    opened = Opened(format, recorded.text, len(candidates))
    for candidate in evenly(candidates, most):
        try:
            opened.takes += [_of_recording(recording) for recording in candidate.read()]
        except BadInput as error:
            opened.problems.append(str(error))
    return opened


def _of_recording(recording: Recording) -> Take:
    height, width = next(iter(recording.read(0, 1))).shape[:2]
    return Take(
        *(recording.id, recording.split, recording.fps, (height, width)),
        *(recording.action_names, recording.actions),
        drops=recording.drops,
        read=recording.read,
    )


def _open_store(path: Path, most: int) -> Opened:
    store = TokenStore(path, on_corrupt="skip")
    spec = store.spec
    text = f"grid {spec.grid}, {spec.vocab_size} tokens, tokenizer {spec.tokenizer[:16]}"
    opened = Opened(STORE, text, len(store.all), has_pixels=False)
    for drive in evenly(store.all, most):
        if drive.damage:
            opened.problems.append(drive.damage)
        else:
            opened.takes.append(_of_tokens(drive, store))
    try:
        opened.noted = noted_statistics(store)
    except BadInput as error:
        opened.problems.append(str(error))
    return opened


def _of_tokens(drive: TokenDrive, store: TokenStore) -> Take:
    show = tokens_of({drive.id: drive})
    entry = store.catalog[drive.id]
    drops = [Drop(*drop) for drop in entry.get("meta", {}).get("dropped_frames", [])]
    return Take(
        *(drive.id, drive.split, store.spec.fps / store.spec.frames_per_step),
        *(store.spec.image_size, store.action_names, drive.actions),
        drops=drops,
        read=lambda start, stop: (show(drive.id, step) for step in range(start, stop)),
    )
