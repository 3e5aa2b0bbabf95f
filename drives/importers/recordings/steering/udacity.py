"""Recordings of the Udacity self-driving-car simulator: `driving_log.csv` and `IMG/`.

The log has the columns center, left, right, steering, throttle, brake, speed, often without
a header, and image paths of the recording machine. A row holds controls and speed at its
frame; they are in force until the next frame, so row t of the log is row t of the drive.
Speed is in miles per hour. There is no yaw rate.

The recorder appends: a log may hold several sessions, in any order. A pause, or a jump back of the
clock, begins another recording.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np

from drives.actions.units import MPS_PER_MPH
from drives.importers.recording import Candidate, Recording, RecordingFormat
from drives.importers.recordings.steering.sessions import RowOptions, Rows, is_there, recordings_of
from drives.importers.recordings.steering.udacity_log import name_of, read_rows
from training.errors import BadInput
from training.ranges import within

ACTION_NAMES = ("steering", "throttle", "brake", "speed_mps")


@dataclass(frozen=True)
class UdacityOptions(RowOptions):
    """Settings of the Udacity simulator.

    Attributes:
        camera: whose images become the frames.
        side_correction: steering that is added for the left camera and taken off for the right
            one, which see the road from beside the car; 0.2 is usual.
    """

    camera: Literal["center", "left", "right"] = "center"
    side_correction: float = 0.0


def find(root: Path, options: UdacityOptions) -> list[Candidate]:
    """The log of a folder, or of every folder below it; BadInput where there is none."""
    logs = [root / "driving_log.csv"] if (root / "driving_log.csv").is_file() else []
    logs = logs or sorted(root.glob("[!.]*/driving_log.csv"))
    if not logs:
        raise BadInput(f"{root}: no driving_log.csv there or one folder below; give its folder")
    return [Candidate(str(log), partial(read_recordings, log, options)) for log in logs]


def read_recordings(log: Path, options: UdacityOptions) -> list[Recording]:
    """The recordings of one log.

    Raises:
        BadInput: a row that cannot be read, or as `recordings_of`.
    """
    within(0.0, 1.0, "--", side_correction=options.side_correction)
    found = read_rows(log, options.camera)
    actions = np.array([row.numbers for row in found])
    actions[:, ACTION_NAMES.index("speed_mps")] *= MPS_PER_MPH
    if options.side_correction and options.camera != "center":
        side = 1 if options.camera == "left" else -1
        actions[:, 0] = np.clip(actions[:, 0] + side * options.side_correction, -1, 1)
    folder = log.parent / "IMG"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    images = [_image(log, row.image, there) for row in found]
    times = np.array([_time_s(log, row, image) for row, image in enumerate(images)])
    rows = Rows(log, images, times, ACTION_NAMES, actions)
    name = log.parent.resolve().name
    source = f"Udacity simulator, {name}/{log.name}"
    if options.camera != "center":
        name, source = f"{name}-{options.camera}", f"{source}, {options.camera} camera"
    return recordings_of(
        rows, name, {"source": source, "licence": options.licence}, options.on_missing
    )


def _image(log: Path, image: str, there: set[str]) -> Path:
    """In IMG beside the log, or where a joined log says, relative to itself."""
    path = PureWindowsPath(image)
    stated = log.parent / path.as_posix()
    if path.name not in there and not path.is_absolute() and is_there(stated):
        return stated
    return log.parent / "IMG" / name_of(image)


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
