"""Recordings of the Udacity self-driving-car simulator: `driving_log.csv` and `IMG/`.

The log has the columns center, left, right, steering, throttle, brake, speed, often without
a header, and image paths of the recording machine. A row holds controls and speed at its
frame; they are in force until the next frame, so row t of the log is row t of the drive.
Speed is in miles per hour. There is no yaw rate.
"""

import csv
import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path, PureWindowsPath

import numpy as np

from drives.actions.table import check_actions
from drives.actions.units import MPS_PER_MPH
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.video.images import check_sizes
from training.errors import BadInput

logger = logging.getLogger(__name__)

COLUMNS = ("center", "left", "right", "steering", "throttle", "brake", "speed")
ACTION_NAMES = ("steering", "throttle", "brake", "speed_mps")
MAX_GAP_S = 1.0  # a longer pause is not one continuous recording
MIN_FRAMES = 20  # a shorter piece cannot be cut into three splits


def find(root: Path, options: ImportOptions) -> list[Candidate]:
    """The log of a folder, or of every folder below it; BadInput where there is none."""
    logs = [root / "driving_log.csv"] if (root / "driving_log.csv").is_file() else []
    logs = logs or sorted(root.glob("*/driving_log.csv"))
    if not logs:
        raise BadInput(f"{root}: no driving_log.csv there or one folder below; give its folder")
    return [Candidate(str(log), partial(read_recordings, log, options.licence)) for log in logs]


def read_recordings(log: Path, licence: str) -> list[Recording]:
    """The recordings of one log.

    A pause of more than a second ends a recording and begins the next, `<name>-00`,
    `<name>-01`, ...; fps is the inverse of the median time between two frames.

    Raises:
        BadInput: a row that cannot be read, or an image missing or of another size.
    """
    images, actions = _read_log(log)
    check_actions(log, ACTION_NAMES, actions)
    times = np.array([_time_s(log, row, image) for row, image in enumerate(images)])
    steps = np.diff(times)
    if len(steps) == 0 or steps.min() <= 0:
        row = int(steps.argmin()) + 1 if len(steps) else 0
        raise BadInput(f"{log}: time does not move on at row {row}; sort the log, drop double rows")
    check_sizes(images)
    fps = round(float(1 / np.median(steps)), 3)
    edges = [0, *(np.flatnonzero(steps > MAX_GAP_S) + 1).tolist(), len(images)]
    pieces = [(a, b) for a, b in pairwise(edges) if b - a >= MIN_FRAMES]
    dropped = len(images) - sum(b - a for a, b in pieces)
    if not pieces:
        raise BadInput(f"{log}: no {MIN_FRAMES} frames without a pause of {MAX_GAP_S:g} s")
    if len(edges) > 2:
        logger.warning(
            "%s: %d pauses of more than %g s, the longest of %.2f s; made %d recordings of it, "
            "left out %d frames in pieces shorter than %d",
            *(log, len(edges) - 2, MAX_GAP_S, steps.max(), len(pieces), dropped, MIN_FRAMES),
        )
    name, many = log.parent.resolve().name, len(pieces) > 1
    return [
        Recording(
            id=f"{name}-{number:02d}" if many else name,
            source=tuple(images[start:stop]),
            fps=fps,
            action_names=ACTION_NAMES,
            actions=actions[start:stop],
            meta={"source": f"Udacity simulator, {name}/{log.name}", "licence": licence},
        )
        for number, (start, stop) in enumerate(pieces)
    ]


def _read_log(log: Path) -> tuple[list[Path], np.ndarray]:
    """Image files, and float64 [frame action] in `ACTION_NAMES`."""
    try:
        with log.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{log}: cannot be read ({error}); correct the file") from error
    if rows and rows[0][0].lower() == "center":
        if tuple(cell.lower() for cell in rows[0]) != COLUMNS:
            raise BadInput(f"{log}: columns are {','.join(rows[0])}; expected {','.join(COLUMNS)}")
        rows = rows[1:]
    if not rows:
        raise BadInput(f"{log}: holds no rows; record something")
    images, values = [], []
    for number, row in enumerate(rows):
        if len(row) != len(COLUMNS):
            raise BadInput(f"{log}: row {number} has {len(row)} fields; {len(COLUMNS)} expected")
        # The path is one of the recording machine, Windows or not.
        images.append(log.parent / "IMG" / PureWindowsPath(row[0]).name)
        values.append(_numbers(log, number, row[3:]))
    actions = np.array(values)
    actions[:, ACTION_NAMES.index("speed_mps")] *= MPS_PER_MPH
    return images, actions


def _numbers(log: Path, row: int, cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise BadInput(f"{log}: row {row}: {error}; correct or delete the row") from error


def _time_s(log: Path, row: int, image: Path) -> float:
    """Seconds from the name, center_YYYY_MM_DD_HH_MM_SS_mmm.jpg."""
    try:
        stamp, _, milliseconds = image.stem.partition("_")[2].rpartition("_")
        whole = datetime.strptime(stamp, "%Y_%m_%d_%H_%M_%S")
        # A naive difference: time.timestamp() would jump where daylight saving begins.
        return (whole - datetime(1970, 1, 1)).total_seconds() + int(milliseconds) / 1000
    except ValueError as error:
        raise BadInput(
            f"{log}: row {row}: image {image.name!r} is not named "
            "center_YYYY_MM_DD_HH_MM_SS_mmm.jpg; restore the simulator's names"
        ) from error


FORMAT = RecordingFormat("driving_log.csv and IMG/ of the Udacity simulator", find)
