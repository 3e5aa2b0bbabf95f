"""Frames and a table become a recording: rows beside frames, or joined to them by time."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from drives.actions.logs import Log
from drives.actions.signals import MAX_GAP_S, Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.columns import PLACES, check_units, places_apart, track_over, with_steering
from drives.importers.recording import ImportOptions
from drives.video.gaps import Drop, describe, holes
from drives.video.rate import describe_rate, grid_rate, resampled, rows_over, same_rate
from training.errors import BadInput
from training.ranges import positive

logger = logging.getLogger(__name__)

WARN_RATE, MAX_RATE = 0.02, 0.1  # shares by which two clocks may disagree
DATE_S = 1e8  # more are seconds since 1970, not since the start of a recording


class Pace(NamedTuple):
    """The rate of a drive, which frames it takes (None: all), and where one is missing."""

    fps: float
    picks: np.ndarray | None
    drops: tuple[Drop, ...]


@dataclass(frozen=True)
class JoinOptions(ImportOptions):
    """Settings of frames beside a table.

    Attributes:
        fps: frames per second of the drives; frames of another or of a varying rate are picked at
            it. Needed where neither the frames nor the table have a clock.
        columns: names of the columns, comma separated, where a table has no header.
        first_frame_s: time of the first frame on the table's clock, in seconds, where a table is
            joined by time; without it 0 or, where that clock is a date, the date that the images
            are named by, else the table's first.
        max_gap_s: longest time between two rows of such a table; values between them lie on a line.
        lock_deg: the steering wheel's angle at full lock, in degrees, where the steering is in
            degrees.
        positive_is: the side of a positive steering wheel angle, left by default; or, without
            `lock_deg`, of a positive `steering`, right by default.
        frames_alone: leave out all tables.
    """

    fps: float | None = None
    columns: str | None = None
    first_frame_s: float | None = None
    max_gap_s: float = MAX_GAP_S
    lock_deg: float | None = None
    positive_is: Literal["left", "right"] | None = None
    frames_alone: bool = False

    def __post_init__(self) -> None:
        for name in ("fps", "lock_deg"):
            if getattr(self, name) is not None:
                positive("--", **{name: getattr(self, name)})
        positive("--", max_gap_s=min(self.max_gap_s, 1e9))

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(self.columns.split(",")) if self.columns else ()


@dataclass(frozen=True)
class FrameClock:
    """What is known of frames before a table is joined.

    Attributes:
        place: file or folder, for messages.
        times_s: of each frame, where the frames have time stamps.
        first_s: seconds since 1970 of the first frame, where they are known.
        rate: frames per second that the container states; 0: none.
        drops: frames that are missing by other signs than times.
    """

    place: Path
    num_frames: int
    times_s: Float[np.ndarray, " frame"] | None = None
    rate: float = 0.0
    drops: tuple[Drop, ...] = ()
    first_s: float | None = None


def join(clock: FrameClock, log: Log | None, options: JoinOptions) -> dict[str, Any]:
    """The fields of a `Recording` besides its name and source, and `indices` of the frames to keep.

    Raises:
        BadInput: no frames; no rate known, or a varying one, without `fps`; neither a row per frame
            nor a clock to join by; clocks that disagree; a value that no action has.
    """
    if not clock.num_frames:
        raise BadInput(f"{clock.place}: has no frames; leave it out (--on-bad=skip)")
    by_row = log is not None and len(log.values) == clock.num_frames
    if log is not None and not by_row and log.times_s is None:
        missing = f" ({describe(clock.drops)})" if clock.drops else ""
        raise BadInput(
            f"{log.file}: {len(log.values)} rows, but {clock.place.name} has {clock.num_frames} "
            f"frames{missing}; give exactly one row per frame, or a column time_s to join by"
        )
    times = clock.times_s
    if by_row and times is None and log is not None:
        times = log.times_s
    pace = _pace(clock, times, options.fps)
    if by_row and log is not None and log.times_s is not None:
        check_clock(log.file, log.clock, log.times_s)
        if log.times_s is not times and options.fps is None:
            pace = _compared(log, log.times_s, pace)
    if times is None:
        times = _counted_times(clock.num_frames, pace)
    names: tuple[str, ...] = ()
    actions, track = np.zeros((len(times), 0)), None
    if log is not None:
        rows = log.values if by_row else _rows(log, clock, times, options)
        names, actions, track = places_apart(log.names, rows)
        names, actions = with_steering(
            log.file, names, actions, options.lock_deg, options.positive_is
        )
        check_actions(log.file, names, actions)
        check_units(log.file, names, actions)
    if pace.picks is not None:
        actions = rows_over(actions, times, pace.picks)
        track = None if track is None else track_over(track, times, pace.picks)
    return {
        "fps": pace.fps,
        "drops": pace.drops,
        "action_names": names,
        "actions": actions,
        "track": track,
        "indices": None if pace.picks is None else tuple(pace.picks.tolist()),
    }


def check_clock(where: object, name: str, times_s: Float[np.ndarray, " row"]) -> None:
    """BadInput unless times are finite and increase."""
    bad = np.flatnonzero(~(np.diff(times_s) > 0))
    if len(bad):
        raise BadInput(
            f"{where}: {name} does not move on at row {bad[0] + 1} (from {times_s[bad[0]]:.3f} to "
            f"{times_s[bad[0] + 1]:.3f} s); correct it, cut the recording there, or leave it out "
            "(--on-bad=skip)"
        )


def _pace(clock: FrameClock, times: np.ndarray | None, fps: float | None) -> Pace:
    """The rate by the frames' own clock, else by the table's, else as stated."""
    if times is None or len(times) < 2:
        if not (fps or clock.rate):
            raise BadInput(
                f"{clock.place}: does not state its rate; give --fps, or a column time_s"
            )
        return Pace(fps or clock.rate, None, clock.drops)
    check_clock(clock.place, "time", times)
    rate = grid_rate(times)
    if rate is not None:  # 30000/1001 is exact in a header, and rounded in stamps of milliseconds
        rate = clock.rate if clock.rate and same_rate(rate, clock.rate) else round(rate, 3)
        if fps is None or same_rate(rate, fps):
            return Pace(fps or rate, None, tuple(holes(times)) or clock.drops)
    if fps is None:
        raise BadInput(
            f"{clock.place}: {describe_rate(times)}; give --fps, the rate to pick frames at"
        )
    picks, drops = resampled(times, fps, str(clock.place))
    return Pace(fps, picks, tuple(drops))


def _counted_times(num_frames: int, pace: Pace) -> Float[np.ndarray, " frame"]:
    """Seconds from the first frame to each; a missing frame takes its time too."""
    steps = np.ones(num_frames)
    steps[0] = 0
    for drop in pace.drops:
        steps[drop.after_frame + 1] += drop.num_missing
    return np.cumsum(steps) / pace.fps


def _compared(log: Log, times: np.ndarray, pace: Pace) -> Pace:
    """Warn where a row-per-frame table runs at another rate than the frames; add its holes."""
    if len(times) < 2:
        return pace
    measured = 1 / float(np.diff(times).mean())
    share = abs(measured / pace.fps - 1)
    if share > MAX_RATE:
        raise BadInput(
            f"{log.file}: {log.clock} says {measured:.2f} frames per second, the video "
            f"{pace.fps:.2f}; give --fps, write the video at the rate it was recorded, or drop "
            "the column"
        )
    if share > WARN_RATE:
        logger.warning(
            "%s: %s says %.2f frames per second, the video %.2f; the video's rate is used",
            *(log.file, log.clock, measured, pace.fps),
        )
    steps = np.diff(times)
    gaps = np.flatnonzero(steps > 2 * np.median(steps))
    if len(gaps):
        logger.warning(
            "%s: %d gaps of more than two frames, the largest of %.3f s before row %d",
            *(log.file, len(gaps), steps.max(), steps.argmax() + 1),
        )
    return pace if pace.drops else pace._replace(drops=tuple(holes(times)))


def _rows(
    log: Log, clock: FrameClock, times: np.ndarray, options: JoinOptions
) -> Float[np.ndarray, "frame column"]:
    """One row per frame, by time."""
    assert log.times_s is not None, "asked for before"
    check_clock(log.file, log.clock, log.times_s)
    since_first = log.times_s - _first_frame_s(log.file, log.times_s, clock, options)
    signals = []
    for name, values in zip(log.names, log.values.T, strict=True):
        # Fixes are rarer than rows; of other columns an empty cell is a fault.
        known = np.isfinite(values) if name in PLACES else np.full(len(values), True)
        signals.append(Signal(name, since_first[known], values[known]))
    remedy = "allow it by --max-gap-s, or cut the recording there"
    return at_frames(signals, times - times[0], options.max_gap_s, str(log.file), remedy)[1]


def _first_frame_s(file: Path, times: np.ndarray, clock: FrameClock, options: JoinOptions) -> float:
    """Time of the first frame on the table's clock, in seconds."""
    if options.first_frame_s is not None:
        return options.first_frame_s
    if times[0] <= DATE_S:
        return 0.0
    if clock.first_s is not None:
        return clock.first_s
    logger.info("%s: its first row is taken as the time of the first frame", file)
    return float(times[0])
