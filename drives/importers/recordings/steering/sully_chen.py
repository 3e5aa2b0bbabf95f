"""Sully Chen's recordings: `N.jpg` and `data.txt`, degrees of the steering wheel.

github.com/SullyChen/driving-datasets: lines `N.jpg angle` (2017), or
`N.jpg angle,year-mm-dd hr:min:sec:millisec` (2018). Upstream's viewer turns its wheel clockwise by
the angle, so it is positive to the right. The older set has no clock: give `--fps` (30 is likely).
"""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from drives.importers.recording import Recording, RecordingFormat
from drives.importers.recordings.steering.sessions import (
    RowOptions,
    Rows,
    logs_in,
    recordings_of,
    with_steering,
)
from training.errors import BadInput
from training.ranges import positive

TABLE = "data.txt"
LINE = re.compile(
    r"(\S+\.(?:jpe?g|png))[\s,]+(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)(?:\s*,\s*(\S.*\S))?\s*", re.I
)


@dataclass(frozen=True)
class SullyChenOptions(RowOptions):
    """Settings of Sully Chen's recordings.

    Attributes:
        fps: frames per second, where the lines have no time.
        lock_deg: steering wheel at full lock, in degrees; adds `steering`, which is 1 there.
    """

    fps: float | None = None
    lock_deg: float | None = None


def read_recordings(table: Path, options: SullyChenOptions) -> list[Recording]:
    """The recordings of one `data.txt`.

    Raises:
        BadInput: a line that cannot be read, no clock and no `fps`, or as `recordings_of`.
    """
    try:
        lines = [line for line in table.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{table}: cannot be read ({error}); correct the file") from error
    found = [LINE.fullmatch(line) for line in lines]
    bad = next((row for row, match in enumerate(found) if match is None), None)
    if bad is not None or not lines:
        text = lines[bad or 0][:60] if lines else ""
        raise BadInput(f"{table}: row {bad or 0} is {text!r}; expected N.jpg angle[,date time]")
    matches = [match for match in found if match is not None]
    degrees = np.array([float(match[2]) for match in matches])
    times = _times(table, [match[3] for match in matches], options.fps)
    left_rad = -np.radians(degrees)
    names, actions = with_steering(
        ("steering_wheel_rad",), left_rad[:, None], -degrees, options.lock_deg
    )
    folder = table.parent
    images = [_image(folder, match[1]) for match in matches]
    name = folder.resolve().name
    return recordings_of(
        Rows(table, images, times, names, actions),
        name,
        {"source": f"Sully Chen, {name}/{TABLE}", "licence": options.licence},
        options.on_missing,
        options.fps,
    )


def _image(folder: Path, name: str) -> Path:
    """Beside the table or in `data/`, as the newer set has them."""
    inner = folder / "data" / name
    return inner if inner.is_file() else folder / name


def _times(table: Path, texts: list[str | None], fps: float | None) -> np.ndarray:
    if fps is not None:
        positive("--", fps=fps)
        return np.arange(len(texts)) / fps
    times = []
    for row, text in enumerate(texts):
        if text is None:
            raise BadInput(f"{table}: row {row} has no time; give --fps (30 is likely)")
        try:
            whole, _, milliseconds = text.rpartition(":")
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S") - datetime(1970, 1, 1)
            times.append(moment.total_seconds() + int(milliseconds) / 1000)
        except ValueError as error:
            raise BadInput(
                f"{table}: row {row}: time {text!r} is not year-mm-dd hr:min:sec:millisec"
            ) from error
    return np.array(times)


FORMAT = RecordingFormat(
    "N.jpg and data.txt of Sully Chen",
    partial(logs_in, name=TABLE, read=read_recordings),
    SullyChenOptions,
)
