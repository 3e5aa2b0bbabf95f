"""Recordings of Udacity's real car: `interpolated.csv` beside `center/`, `left/`, `right/`.

github.com/udacity/self-driving-car, datasets/CH2 and CH3; rwightman/udacity-driving-reader writes
the table from the bags: a row per image, times in nanoseconds since 1970, the angle of the steering
wheel in radians (positive to the left), its torque in Nm, the speed in m/s, the place in degrees.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from drives.actions.logs import encoding_of
from drives.importers.recording import Recording, RecordingFormat
from drives.importers.recordings.steering.sessions import (
    RowOptions,
    Rows,
    logs_in,
    recordings_of,
    with_steering,
)
from training.errors import BadInput

TABLE = "interpolated.csv"
NEEDED = ("timestamp", "frame_id", "filename", "angle", "speed")
ACTION_NAMES = ("steering_wheel_rad", "steering_wheel_torque_nm", "speed_mps")
NANOSECONDS = 1e-9


@dataclass(frozen=True)
class UdacityCarOptions(RowOptions):
    """Settings of Udacity's real car.

    Attributes:
        licence: of the recordings; noted in every drive.json.
        camera: whose images become the frames.
        lock_deg: steering wheel at full lock, in degrees; adds `steering`, which is 1 there.
    """

    licence: str = "MIT"
    camera: Literal["center", "left", "right"] = "center"
    lock_deg: float | None = None


def read_recordings(table: Path, options: UdacityCarOptions) -> list[Recording]:
    """The recordings of one camera.

    Raises:
        BadInput: the table lacks a column or the camera, a value is no number, or as
            `recordings_of`.
    """
    lines = _lines_of(table, f"{options.camera}_camera")
    numbers = {
        name: np.array([_number(table, row, line, name) for row, line in lines])
        for name in ("angle", "torque", "speed", "lat", "long")
        if name in lines[0][1]
    }
    # Whole nanoseconds: a double holds them to a quarter of a microsecond only.
    stamps = [int(_number(table, row, line, "timestamp")) for row, line in lines]
    times = np.array([stamp - stamps[0] for stamp in stamps]) * NANOSECONDS
    kept = [name for name in ("angle", "torque", "speed") if name in numbers]
    ours = dict(zip(("angle", "torque", "speed"), ACTION_NAMES, strict=True))
    names, actions = with_steering(
        tuple(ours[name] for name in kept),
        np.stack([numbers[name] for name in kept], axis=1),
        np.degrees(numbers["angle"]),
        options.lock_deg,
    )
    has_track = {"lat", "long"} <= set(numbers)
    track = np.stack([numbers["lat"], numbers["long"]], axis=1) if has_track else None
    images = [table.parent / line["filename"].replace("\\", "/") for _, line in lines]
    rows = Rows(table, images, times, names, actions, track)
    place = table.parent.resolve().name
    name = place if options.camera == "center" else f"{place}-{options.camera}"
    source = f"Udacity's car, {place}/{table.name}, {options.camera} camera"
    return recordings_of(
        rows, name, {"source": source, "licence": options.licence}, options.on_missing
    )


def _lines_of(table: Path, frame_id: str) -> Sequence[tuple[int, dict[str, str]]]:
    """The lines of one camera with their row numbers, in the order of time."""
    try:
        data = table.read_bytes()
        lines = list(csv.DictReader(data.decode(encoding_of(data)).splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read ({error}); correct the file") from error
    missing = [name for name in NEEDED if not lines or name not in lines[0]]
    if missing:
        raise BadInput(
            f"{table}: has no column {missing[0]}; give a table with {', '.join(NEEDED)}"
        )
    found = [(row, line) for row, line in enumerate(lines) if line["frame_id"] == frame_id]
    if not found:
        cameras = ", ".join(sorted({str(line["frame_id"]) for line in lines}))
        raise BadInput(f"{table}: has no {frame_id}, but {cameras}; give --camera")
    return sorted(found, key=lambda line: _number(table, line[0], line[1], "timestamp"))


def _number(table: Path, row: int, line: dict[str, str], name: str) -> float:
    try:
        return float(line[name]) if name != "timestamp" else int(line[name])
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{table}: row {row}, column {name!r} is {line[name]!r}; correct or delete the row"
        ) from error


FORMAT = RecordingFormat(
    "interpolated.csv and images of Udacity's real car",
    partial(logs_in, name=TABLE, read=read_recordings),
    UdacityCarOptions,
)
