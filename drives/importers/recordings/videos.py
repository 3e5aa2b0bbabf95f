"""A folder of videos, each with a table of actions beside it.

Either `name.mp4` with `name.csv`, or a folder `name/` with `video.mp4` and `actions.csv`
(any container or Parquet likewise). One row per frame, and row t is in force between frame t
and frame t+1; a table at another rate is joined by its clock. `drives.actions.logs` reads tables:
columns get our names and SI units; indices and clocks are left out.
"""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from drives import video
from drives.actions.logs import Log, read_log
from drives.actions.signals import Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.recording import (
    Candidate,
    ImportOptions,
    PickedFrames,
    Recording,
    RecordingFormat,
)
from drives.video import VIDEO_SUFFIXES
from drives.video.gaps import find_drops
from drives.video.rate import describe_rate, frame_times, grid_rate, resampled, rows_over, same_rate
from training.errors import BadInput
from training.ranges import positive

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".parquet")
WARN_RATE, MAX_RATE = 0.02, 0.1  # shares by which time stamps and frame rate may disagree


@dataclass(frozen=True)
class VideoOptions(ImportOptions):
    """Settings of videos.

    Attributes:
        licence: of the recordings; noted in every drive.json.
        fps: frames per second of the drives; recordings of another rate, or of a rate that varies,
            are resampled, and a stream that states no rate is taken to have this one.
    """

    fps: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None:
            positive("--", fps=self.fps)


def find(root: Path, options: VideoOptions) -> list[Candidate]:
    """Every video in `root`, or one folder below it; BadInput where there is none."""
    paths = [p for p in (*root.glob("*"), *root.glob("*/*")) if p.suffix.lower() in VIDEO_SUFFIXES]
    if not paths:
        raise BadInput(f"{root}: no videos ({', '.join(VIDEO_SUFFIXES)}) there or one folder below")
    return [
        Candidate(str(path), partial(read_recording, root, path, options)) for path in sorted(paths)
    ]


def read_recording(root: Path, path: Path, options: VideoOptions) -> list[Recording]:
    """A video with its table of actions; without a table it has frames alone, and that is told.

    Raises:
        BadInput: a table of neither one row per frame nor a clock, time stamps that contradict the
            video's frame rate, or a rate that is unknown or varies, without `options.fps`.
    """
    name = path.parent.resolve().name if path.stem == "video" else path.stem
    log = _log_of(path)
    times, fps = _clock_of(path, log, options.fps)
    actions = np.zeros((len(times), 0)) if log is None else _rows_of(log, path, times)
    names = () if log is None else log.names
    check_actions(path if log is None else log.file, names, actions)
    meta = {"source": str(path.relative_to(root)), "licence": options.licence}
    if fps is not None and (options.fps is None or same_rate(fps, options.fps)):
        return [Recording(name, path, fps, names, actions, meta, drops=find_drops(path))]
    if options.fps is None:
        raise BadInput(f"{path}: {describe_rate(times)}; give --fps N to resample it to one rate")
    picks, drops = resampled(times, options.fps, str(path))
    rows, frames = rows_over(actions, times, picks), PickedFrames(path, picks.tolist())
    recorded = {"recorded_fps": fps or "varies"}
    return [Recording(name, frames, options.fps, names, rows, meta | recorded, drops=drops)]


def _log_of(path: Path) -> Log | None:
    """The table beside a video: `actions.csv` for `video.mp4`, else one of the video's name."""
    stem = "actions" if path.stem == "video" else path.stem
    tables = [path.with_name(stem + suffix) for suffix in TABLE_SUFFIXES]
    table = next((candidate for candidate in tables if candidate.is_file()), None)
    if table is not None:
        return read_log(table)
    lost = [p for p in path.parent.iterdir() if p.suffix.lower() in TABLE_SUFFIXES]
    videos = {p.stem for p in path.parent.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES}
    lost = sorted(table for table in lost if table.stem not in videos)
    if lost:
        raise BadInput(
            f"{path}: no {tables[0].name} beside it, but {lost[0].name}, which is of no video; "
            "give it the video's name, or move it away"
        )
    logger.warning("%s: no %s beside it; it becomes frames alone", path, tables[0].name)
    return None


def _clock_of(path: Path, log: Log | None, fps: float | None) -> tuple[np.ndarray, float | None]:
    """Seconds of every frame, and the rate that is true; None where it varies."""
    stated = video.frame_rate(path)
    if stated:
        times = frame_times(path)
    elif log is not None and log.times_s is not None and len(log.times_s) == video.num_frames(path):
        times = log.times_s - log.times_s[0]
    elif fps is not None:
        times, stated = np.arange(video.num_frames(path)) / fps, fps
    else:
        raise BadInput(
            f"{path}: states no frame rate; give --fps N, or a column time_s with a row per frame"
        )
    if len(times) < 2:
        return times, stated or None
    found = grid_rate(times)
    # 30000/1001 is exact in the header, and no longer in stamps of milliseconds. Where frames are
    # missing, the header has an average.
    exact = found is not None and stated and same_rate(stated, found)
    return times, stated if exact else found


def _rows_of(log: Log, path: Path, frame_times: np.ndarray) -> np.ndarray:
    """The log's rows, one per frame; a log at another rate is joined by its clock."""
    if len(log.values) == len(frame_times):
        if log.times_s is not None and len(frame_times) > 1:
            mean_step = (frame_times[-1] - frame_times[0]) / (len(frame_times) - 1)
            _check_times(log.file, log.times_s, 1 / mean_step)
        return log.values
    if log.times_s is None or not len(log.values):
        raise BadInput(
            f"{log.file}: {len(log.values)} rows, but {path.name} has {len(frame_times)} frames; "
            "give exactly one row per frame, or a column with the time (time_s)"
        )
    times = log.times_s - log.times_s[0]
    signals = [Signal(n, times, v) for n, v in zip(log.names, log.values.T, strict=True)]
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


FORMAT = RecordingFormat("videos, with a table of actions beside each or none", find, VideoOptions)
