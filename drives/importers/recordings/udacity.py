"""Recordings of the Udacity self-driving-car simulator: `driving_log.csv` and `IMG/`.

The log has the columns center, left, right, steering, throttle, brake, speed, often without
a header, and image paths of the recording machine. A row holds controls and speed at its
frame; they are in force until the next frame, so row t of the log is row t of the drive.
Speed is in miles per hour. There is no yaw rate.

The recorder appends: a log may hold several sessions, in any order. A pause, or a jump back of the
clock, begins another recording.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
from jaxtyping import Float

from drives.actions.table import check_actions
from drives.actions.units import MPS_PER_MPH
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.importers.recordings.udacity_log import name_of, read_rows
from drives.video.gaps import holes
from drives.video.images import check_sizes
from training.errors import BadInput
from training.ranges import within

logger = logging.getLogger(__name__)

ACTION_NAMES = ("steering", "throttle", "brake", "speed_mps")
MAX_GAP_S = 1.0  # a longer pause is not one continuous recording
MIN_FRAMES = 20  # a shorter piece cannot be cut into three splits


@dataclass(frozen=True)
class UdacityOptions(ImportOptions):
    """Settings of the Udacity simulator.

    Attributes:
        camera: whose images become the frames.
        side_correction: steering that is added for the left camera and taken off for the right
            one, which see the road from beside the car; 0.2 is usual.
        on_missing: what a row without its image does: stop, or leave a gap.
    """

    camera: Literal["center", "left", "right"] = "center"
    side_correction: float = 0.0
    on_missing: Literal["stop", "gap"] = "stop"


def find(root: Path, options: UdacityOptions) -> list[Candidate]:
    """The log of a folder, or of every folder below it; BadInput where there is none."""
    logs = [root / "driving_log.csv"] if (root / "driving_log.csv").is_file() else []
    logs = logs or sorted(root.glob("[!.]*/driving_log.csv"))
    if not logs:
        raise BadInput(f"{root}: no driving_log.csv there or one folder below; give its folder")
    return [Candidate(str(log), partial(read_recordings, log, options)) for log in logs]


def read_recordings(log: Path, options: UdacityOptions) -> list[Recording]:
    """The recordings of one log.

    A pause of more than a second, or an earlier time, ends a recording and begins the next,
    `<name>-00`, `<name>-01`, ...; fps is the inverse of the median time between two frames.

    Raises:
        BadInput: a row that cannot be read, an image that is missing or of another size, or rows
            of one session out of order.
    """
    images, actions = _read_log(log, options)
    times = np.array([_time_s(log, row, image) for row, image in enumerate(images)])
    sessions = sessions_of(log, times)
    images, actions, times, sessions = _present(log, images, actions, times, sessions, options)
    check_sizes(images)
    steps = np.diff(times)
    steps = steps[(steps > 0) & (steps <= MAX_GAP_S)]
    fps = round(float(1 / np.median(steps)), 3) if len(steps) else 0.0
    pieces = [(a, b) for a, b in sessions if b - a >= MIN_FRAMES]
    if not pieces:
        raise BadInput(f"{log}: no {MIN_FRAMES} frames without a pause of {MAX_GAP_S:g} s")
    if len(sessions) > 1:
        _tell(log, times, sessions, pieces)
    name, many = log.parent.resolve().name, len(pieces) > 1
    source = f"Udacity simulator, {name}/{log.name}"
    if options.camera != "center":
        name, source = f"{name}-{options.camera}", f"{source}, {options.camera} camera"
    return [
        Recording(
            id=f"{name}-{number:02d}" if many else name,
            source=tuple(images[start:stop]),
            fps=fps,
            action_names=ACTION_NAMES,
            actions=actions[start:stop],
            meta={"source": source, "licence": options.licence},
            drops=tuple(holes(times[start:stop])),
        )
        for number, (start, stop) in enumerate(pieces)
    ]


def sessions_of(log: Path, times_s: Float[np.ndarray, " row"]) -> list[tuple[int, int]]:
    """Rows `start <= i < stop` of every session, in the order of the log.

    Raises:
        BadInput: two rows of one time, or two sessions at one time: rows are out of order or twice.
    """
    steps = np.diff(times_s)
    cuts = (np.flatnonzero((steps > MAX_GAP_S) | (steps <= 0)) + 1).tolist()
    sessions = list(pairwise([0, *cuts, len(times_s)]))
    in_time = sorted(sessions, key=lambda session: times_s[session[0]])
    for before, after in pairwise(in_time):
        if times_s[after[0]] <= times_s[before[1] - 1]:
            row = max(before[0], after[0])
            raise BadInput(
                f"{log}: time does not move on at row {row}; sort the log, drop double rows"
            )
    return sessions


def _tell(
    log: Path,
    times: np.ndarray,
    sessions: Sequence[tuple[int, int]],
    pieces: Sequence[tuple[int, int]],
) -> None:
    steps = np.diff(times)[[stop - 1 for _, stop in sessions[:-1]]]
    back = int((steps <= 0).sum())
    logger.warning(
        "%s: %d pauses of more than %g s, the longest of %.2f s, %d jumps back of the clock; made "
        "%d recordings of it, left out %d frames in pieces shorter than %d",
        *(log, len(steps) - back, MAX_GAP_S, max(0.0, steps.max()), back, len(pieces)),
        *(len(times) - sum(b - a for a, b in pieces), MIN_FRAMES),
    )


def _read_log(log: Path, options: UdacityOptions) -> tuple[list[Path], np.ndarray]:
    """Image files, and float64 [frame action] in `ACTION_NAMES`."""
    within(0.0, 1.0, side_correction=options.side_correction)
    rows = read_rows(log, options.camera)
    actions = np.array([row.numbers for row in rows])
    actions[:, ACTION_NAMES.index("speed_mps")] *= MPS_PER_MPH
    check_actions(log, ACTION_NAMES, actions)
    if options.side_correction:
        side = {"center": 0, "left": 1, "right": -1}[options.camera]
        actions[:, 0] = np.clip(actions[:, 0] + side * options.side_correction, -1, 1)
    folder = log.parent / "IMG"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [_image(log, row.image, there) for row in rows], actions


def _image(log: Path, image: str, there: set[str]) -> Path:
    """In IMG beside the log, or where a joined log says, relative to itself."""
    path = PureWindowsPath(image)
    stated = log.parent / path.as_posix()
    if path.name not in there and not path.is_absolute() and stated.is_file():
        return stated
    return log.parent / "IMG" / name_of(image)


def _present(
    log: Path,
    images: list[Path],
    actions: np.ndarray,
    times: np.ndarray,
    sessions: list[tuple[int, int]],
    options: UdacityOptions,
) -> tuple[list[Path], np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """The rows whose images are there; BadInput where one is missing, unless it may be a gap."""
    has = np.array([image.is_file() for image in images])
    if has.all():
        return images, actions, times, sessions
    count = int((~has).sum())
    if not has.any():
        raise BadInput(
            f"{log}: none of its {count} images is there ({images[0]}); put IMG beside the log"
        )
    if options.on_missing == "stop":
        raise BadInput(
            f"{images[int(np.flatnonzero(~has)[0])]}: cannot be decoded (missing, as are "
            f"{count - 1} others of {len(images)}); restore it, or give --on-missing=gap"
        )
    logger.warning("%s: %d of %d images are missing: gaps", log, count, len(images))
    before = np.concatenate([[0], np.cumsum(has)]).tolist()
    kept = [(before[a], before[b]) for a, b in sessions if before[b] > before[a]]
    return [im for im, h in zip(images, has, strict=True) if h], actions[has], times[has], kept


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


FORMAT = RecordingFormat("driving_log.csv and IMG/ of the Udacity simulator", find, UdacityOptions)
