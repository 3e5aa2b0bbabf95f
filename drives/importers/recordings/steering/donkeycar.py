"""Donkey Car tubs (github.com/autorope/donkeycar, MIT): version 2, and version 1 of old cars.

    manifest.json            lines of JSON; the last names the catalogs and the deleted indexes
    catalog_0.catalog        a line of JSON per record: image, user/angle, user/throttle, clock
    images/

    record_1.json ...        version 1: a file per record, images beside them, no clock

`user/angle` is [-1, 1], positive to the right. A negative `user/throttle` brakes, and at standstill
reverses: it becomes `brake`. Deleted records stay a gap. The clock of converted tubs is that of the
conversion: records a few milliseconds apart are refused without `--fps`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drives.importers.recording import Candidate, Recording, RecordingFormat
from drives.importers.recordings.steering.sessions import RowOptions, Rows, recordings_of
from training.errors import BadInput
from training.ranges import positive

ACTION_NAMES = ("steering", "throttle", "brake")
FIELDS = ("cam/image_array", "user/angle", "user/throttle")
MOST_FPS = 120  # no camera of such a car is faster
REMEDY = "give --fps, the car's DRIVE_LOOP_HZ (20 unless it was changed)"


@dataclass(frozen=True)
class DonkeyCarOptions(RowOptions):
    """Settings of Donkey Car.

    Attributes:
        fps: frames per second, where the records' clock is missing or is not the car's.
    """

    fps: float | None = None


@dataclass(frozen=True)
class Record:
    """One record, and where it stands."""

    where: str
    index: int
    values: Mapping[str, Any]


def find(root: Path, options: DonkeyCarOptions) -> list[Candidate]:
    """Every tub up to two folders below; BadInput where there is none."""
    if root.is_file():
        raise BadInput(f"{root}: is a file; unpack it (tar xf {root.name}) and give the folder")
    tubs = []
    for depth in ("", "[!.]*/", "[!.]*/*/"):
        catalogs = {p.parent for p in root.glob(f"{depth}[!.]*.catalog")}
        tubs += sorted(catalogs | {p.parent for p in root.glob(f"{depth}record_[0-9]*.json")})
    if not tubs:
        raise BadInput(f"{root}: no tub (*.catalog or record_*.json) there or two folders below")
    return [Candidate(str(tub), partial(read_recordings, tub, options)) for tub in tubs]


def read_recordings(tub: Path, options: DonkeyCarOptions) -> list[Recording]:
    """The recordings of one tub: one per session of the car, cut at pauses.

    Raises:
        BadInput: a record that cannot be read, a clock that lies or is missing without `fps`, or as
            `recordings_of`.
    """
    is_new = (tub / "manifest.json").is_file()
    records = list(_new_records(tub) if is_new else _old_records(tub))
    if not records:
        raise BadInput(f"{tub}: holds no records; leave it out (--on-bad=skip)")
    angle, throttle = (
        np.array([_number(record, field) for record in records]) for field in FIELDS[1:]
    )
    actions = np.stack([angle, np.maximum(throttle, 0), np.maximum(-throttle, 0)], axis=1)
    folder = tub / "images" if is_new else tub
    rows = Rows(
        tub,
        [folder / Path(str(record.values[FIELDS[0]])).name for record in records],
        _times(tub, records, options.fps),
        ACTION_NAMES,
        actions,
        sessions=[str(record.values.get("_session_id", "")) for record in records],
    )
    name = tub.resolve().name
    meta = {"source": f"Donkey Car tub, {name}", "licence": options.licence}
    return recordings_of(rows, name, meta, options.on_missing, options.fps)


def _new_records(tub: Path) -> Iterator[Record]:
    manifest = tub / "manifest.json"
    # Five lines: fields, their types, metadata, dates, and what the tub holds.
    held = [value for _, value in _lines(manifest) if isinstance(value, dict) and "paths" in value]
    if not held or not isinstance(held[-1]["paths"], list):
        raise BadInput(f"{manifest}: names no catalogs (paths); copy the tub again")
    deleted = set(held[-1].get("deleted_indexes") or ())
    for name in held[-1]["paths"]:
        catalog = tub / Path(str(name)).name
        for number, values in _lines(catalog):
            record = _record(f"{catalog}: line {number}", values, None)
            if record.index not in deleted:
                yield record


def _old_records(tub: Path) -> Iterator[Record]:
    found = []
    for file in tub.glob("record_*.json"):
        number = re.fullmatch(r"record_(\d+)", file.stem)
        if number:
            found.append((int(number[1]), file))
    for index, file in sorted(found):
        for _, values in _lines(file, whole=True):
            yield _record(str(file), values, index)


def _lines(file: Path, whole: bool = False) -> Iterator[tuple[int, Any]]:
    """JSON of every line with its number; BadInput where a line is cut short or damaged."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); copy the tub again") from error
    for number, line in enumerate([text] if whole else text.splitlines()):
        if not line.strip("\0 "):
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(
                f"{file}: line {number} is no JSON ({str(error)[:60]}); delete it or copy the tub "
                "again"
            ) from error


def _record(where: str, values: Any, index: int | None) -> Record:
    found = values.get("_index") if index is None and isinstance(values, dict) else index
    missing = [name for name in FIELDS if not isinstance(values, dict) or name not in values]
    if missing or not isinstance(found, int):
        raise BadInput(f"{where}: has no {(missing or ['_index'])[0]}; delete the record")
    return Record(where, found, values)


def _number(record: Record, field: str) -> float:
    value = record.values.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{record.where}: {field} is {value!r}; give a number, or delete the record")
    return float(value)


def _times(tub: Path, records: list[Record], fps: float | None) -> np.ndarray:
    """Seconds of each record: by its number at `fps`, or by the car's clock."""
    if fps is not None:
        positive("--", fps=fps)
        return np.array([record.index for record in records]) / fps
    if "_timestamp_ms" not in records[0].values:
        raise BadInput(f"{tub}: its records have no clock; {REMEDY}")
    times = np.array([_number(record, "_timestamp_ms") for record in records]) / 1000
    steps = np.diff(times)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if step * MOST_FPS < 1:
        raise BadInput(
            f"{tub}: its records are {step * 1000:.3g} ms apart, no clock of a camera; {REMEDY}"
        )
    return times


FORMAT = RecordingFormat("tubs of Donkey Car", find, DonkeyCarOptions)
