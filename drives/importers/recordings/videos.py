"""A folder of videos, each with a table of actions beside it.

Either `name.mp4` with `name.csv`, or a folder `name/` with `video.mp4` and `actions.csv`
(any container or Parquet likewise). One row per frame, and row t is in force between frame t
and frame t+1; a table at another rate is joined by its clock. `drives.actions.logs` reads tables:
columns get our names and SI units; indices and clocks are left out.
"""

import logging
import math
from functools import partial
from pathlib import Path

import numpy as np

from drives import video
from drives.actions.logs import Log, read_log
from drives.actions.signals import Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.video import VIDEO_SUFFIXES
from training.errors import BadInput

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".parquet")
WARN_RATE, MAX_RATE = 0.02, 0.1  # shares by which time stamps and frame rate may disagree


def find(root: Path, options: ImportOptions) -> list[Candidate]:
    """Every video in `root`, or one folder below it; BadInput where there is none."""
    paths = [p for p in (*root.glob("*"), *root.glob("*/*")) if p.suffix.lower() in VIDEO_SUFFIXES]
    if not paths:
        raise BadInput(f"{root}: no videos ({', '.join(VIDEO_SUFFIXES)}) there or one folder below")
    return [
        Candidate(str(path), partial(read_recording, root, path, options.licence))
        for path in sorted(paths)
    ]


def read_recording(root: Path, path: Path, licence: str) -> list[Recording]:
    """A video with its table of actions.

    Raises:
        BadInput: a video without a table, not one row per frame, or time stamps that contradict
            the video's frame rate.
    """
    own_folder = path.stem == "video"
    name = path.parent.resolve().name if own_folder else path.stem
    stem = "actions" if own_folder else path.stem
    tables = [path.with_name(stem + suffix) for suffix in TABLE_SUFFIXES]
    table = next((candidate for candidate in tables if candidate.is_file()), None)
    if table is None:
        raise BadInput(f"{path}: no {tables[0].name} beside it; give one row of actions per frame")
    log, fps = read_log(table), video.frame_rate(path)
    actions = _rows_of(log, path, fps)
    check_actions(table, log.names, actions)
    meta = {"source": str(path.relative_to(root)), "licence": licence}
    return [Recording(name, path, fps, log.names, actions, meta)]


def _rows_of(log: Log, path: Path, fps: float) -> np.ndarray:
    """The log's rows, one per frame; a log at another rate is joined by its clock."""
    num_frames = video.num_frames(path)
    if len(log.values) == num_frames:
        if log.times_s is not None:
            _check_times(log.file, log.times_s, fps)
        return log.values
    if log.times_s is None or not len(log.values):
        raise BadInput(
            f"{log.file}: {len(log.values)} rows, but {path.name} has {num_frames} frames; "
            "give exactly one row per frame, or a column with the time (time_s)"
        )
    times = log.times_s - log.times_s[0]
    signals = [Signal(n, times, v) for n, v in zip(log.names, log.values.T, strict=True)]
    frame_times = np.zeros(0)
    logger.info("%s: joined with %s by time; both begin together", log.file, path.name)
    return at_frames(signals, frame_times - frame_times[0], where=str(log.file))[1]


def _check_times(table: Path, times: np.ndarray, fps: float) -> None:
    """Warn about gaps; BadInput where time stands still or runs at another rate."""
    steps = np.diff(times)
    bad = np.flatnonzero(~(steps > 0))
    if len(bad):
        raise BadInput(f"{table}: time_s does not move on at row {bad[0] + 1}; correct the column")
    if len(steps) == 0:
        return
    measured = 1 / float(steps.mean())
    share = abs(measured / fps - 1) if fps else math.inf
    if share > MAX_RATE:
        raise BadInput(
            f"{table}: time_s says {measured:.2f} frames per second, the video {fps:.2f}; "
            "write the video at the rate it was recorded, or drop the column"
        )
    if share > WARN_RATE:
        logger.warning(
            "%s: time_s says %.2f frames per second, the video %.2f; the video's rate is used",
            *(table, measured, fps),
        )
    gaps = np.flatnonzero(steps > 2 * np.median(steps))
    if len(gaps):
        logger.warning(
            "%s: %d gaps of more than two frames, the largest of %.3f s before row %d",
            *(table, len(gaps), steps.max(), steps.argmax() + 1),
        )


FORMAT = RecordingFormat("videos with a table of actions beside each", find)
