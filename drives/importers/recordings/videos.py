"""A folder of videos, each with a table of actions beside it.

Either `name.mp4` with `name.csv`, or a folder `name/` with `video.mp4` and `actions.csv`
(any container or Parquet likewise). One row per frame; row t is in force between frame t
and frame t+1. Columns keep their names, except that those in other units are converted to
SI, and `time_s` is used to check the frame rate and then left out.
"""

import logging
import math
from functools import partial
from pathlib import Path

import numpy as np

from drives import video
from drives.actions.table import check_actions, read_table
from drives.actions.units import to_si
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
    names, values = read_table(table)
    num_frames = video.num_frames(path)
    if len(values) != num_frames:
        raise BadInput(
            f"{table}: {len(values)} rows, but {path.name} has {num_frames} frames; "
            "give exactly one row per frame"
        )
    fps = video.frame_rate(path)
    meta = {"source": str(path.relative_to(root)), "licence": licence}
    if "time_s" in names:
        column = names.index("time_s")
        _check_times(table, values[:, column], fps)
        values, names = np.delete(values, column, axis=1), names[:column] + names[column + 1 :]
    names, actions = to_si(table, names, values)
    check_actions(table, names, actions)
    return [Recording(name, path, fps, names, actions, meta)]


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
