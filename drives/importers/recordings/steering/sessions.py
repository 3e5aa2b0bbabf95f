"""Rows of a log, each with its image, become recordings: cut at pauses and jumps of the clock."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from drives.actions.derived import steering_from_wheel
from drives.actions.table import check_actions
from drives.importers.recording import Candidate, ImportOptions, Recording
from drives.video.gaps import holes
from drives.video.images import check_sizes
from training.errors import BadInput

logger = logging.getLogger(__name__)

MAX_GAP_S = 1.0  # a longer pause is not one continuous recording
MIN_FRAMES = 20  # a shorter piece cannot be cut into three splits


@dataclass(frozen=True)
class RowOptions(ImportOptions):
    """Settings of logs with an image per row.

    Attributes:
        on_missing: what a row without its image does: stop, or leave a gap.
    """

    on_missing: Literal["stop", "gap"] = "stop"


@dataclass(frozen=True)
class Rows:
    """What a log holds, in its order.

    Attributes:
        place: the log, for messages.
        times_s: of each row.
        sessions: a name per row; another one begins another recording.
    """

    place: Path
    images: Sequence[Path] = field(repr=False)
    times_s: Float[np.ndarray, " row"] = field(repr=False)
    action_names: tuple[str, ...]
    actions: Float[np.ndarray, "row action"] = field(repr=False)
    track: Float[np.ndarray, "row 2"] | None = field(default=None, repr=False)
    sessions: Sequence[str] = field(default=(), repr=False)

    def only(self, rows: np.ndarray) -> "Rows":
        return replace(
            self,
            images=[self.images[row] for row in rows],
            times_s=self.times_s[rows],
            actions=self.actions[rows],
            track=None if self.track is None else self.track[rows],
            sessions=[self.sessions[row] for row in rows] if self.sessions else (),
        )


def logs_in(
    root: Path, options: Any, name: str, read: Callable[[Path, Any], Sequence[Recording]]
) -> list[Candidate]:
    """Every file of that name up to two folders below; BadInput where there is none."""
    logs = [p for depth in ("", "[!.]*/", "[!.]*/*/") for p in sorted(root.glob(depth + name))]
    if not logs:
        raise BadInput(f"{root}: no {name} there or two folders below; give its folder")
    return [Candidate(str(log), partial(read, log, options)) for log in logs]


def recordings_of(
    rows: Rows, name: str, meta: dict[str, Any], on_missing: str, fps: float | None = None
) -> list[Recording]:
    """The recordings of a log.

    A pause of more than a second, an earlier time or another session ends a recording and begins
    the next, `<name>-00`, `<name>-01`, ...

    Args:
        fps: frames per second; None: the inverse of the median time between two frames.

    Raises:
        BadInput: rows of one session are out of order, an image is missing or of another size, or
            no piece is long enough.
    """
    check_actions(rows.place, rows.action_names, rows.actions)
    bad = np.flatnonzero(~np.isfinite(rows.times_s))
    if len(bad):
        raise BadInput(
            f"{rows.place}: row {bad[0]}: its time is {rows.times_s[bad[0]]}; correct it"
        )
    pieces = sessions_of(rows)
    rows, pieces = _present(rows, pieces, on_missing)
    check_sizes(rows.images)
    steps = np.diff(rows.times_s)
    steps = steps[(steps > 0) & (steps <= MAX_GAP_S)]
    long = [(a, b) for a, b in pieces if b - a >= MIN_FRAMES]
    if not long:
        raise BadInput(f"{rows.place}: no {MIN_FRAMES} frames without a pause of {MAX_GAP_S:g} s")
    if len(pieces) > 1:
        _tell(rows, pieces, long)
    return [
        Recording(
            id=f"{name}-{number:02d}" if len(long) > 1 else name,
            source=tuple(rows.images[start:stop]),
            fps=fps or round(float(1 / np.median(steps)), 3),
            action_names=rows.action_names,
            actions=rows.actions[start:stop],
            meta=meta,
            track=None if rows.track is None else rows.track[start:stop],
            drops=holes(rows.times_s[start:stop]),
        )
        for number, (start, stop) in enumerate(long)
    ]


def sessions_of(rows: Rows) -> list[tuple[int, int]]:
    """Rows `start <= i < stop` of every session, in the order of the log.

    Raises:
        BadInput: two rows of one time, or two sessions at one time: rows are out of order or twice.
    """
    steps = np.diff(rows.times_s)
    names = np.array(rows.sessions or [""] * len(rows.images))
    ends = (steps > MAX_GAP_S) | (steps <= 0) | (names[1:] != names[:-1])
    sessions = list(pairwise([0, *(np.flatnonzero(ends) + 1).tolist(), len(rows.images)]))
    in_time = sorted(sessions, key=lambda session: rows.times_s[session[0]])
    for before, after in pairwise(in_time):
        if rows.times_s[after[0]] <= rows.times_s[before[1] - 1]:
            raise BadInput(
                f"{rows.place}: time does not move on at row {max(before[0], after[0])}; sort the "
                "log, drop double rows"
            )
    return sessions


def is_there(image: Path) -> bool:
    """Whether it is a file; a damaged log may hold names that no file can have."""
    try:
        return image.is_file()
    except OSError:
        return False


def with_steering(
    names: tuple[str, ...], actions: np.ndarray, wheel_deg: np.ndarray, lock_deg: float | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """The columns with `steering` in front, where the wheel's lock is known.

    Args:
        wheel_deg: angle of the steering wheel, positive to the left.
    """
    if lock_deg is None:
        return names, actions
    steering = steering_from_wheel(wheel_deg, lock_deg)
    return ("steering", *names), np.column_stack([steering, actions])


def _present(
    rows: Rows, pieces: list[tuple[int, int]], on_missing: str
) -> tuple[Rows, list[tuple[int, int]]]:
    """The rows whose images are there; BadInput where one is missing, unless it may be a gap."""
    has = np.array([is_there(image) for image in rows.images])
    count = int((~has).sum())
    if not count:
        return rows, pieces
    first = rows.images[int(np.flatnonzero(~has)[0])]
    if not has.any():
        raise BadInput(
            f"{rows.place}: none of its {count} images is there ({first}); put them back beside it"
        )
    if on_missing == "stop":
        raise BadInput(
            f"{first}: cannot be decoded (missing, as are {count - 1} others of {len(has)}); "
            "restore it, or give --on-missing=gap"
        )
    logger.warning("%s: %d of %d images are missing: gaps", rows.place, count, len(has))
    before = np.concatenate([[0], np.cumsum(has)]).tolist()
    kept = [(before[a], before[b]) for a, b in pieces if before[b] > before[a]]
    return rows.only(np.flatnonzero(has)), kept


def _tell(rows: Rows, pieces: Sequence[tuple[int, int]], long: Sequence[tuple[int, int]]) -> None:
    steps = np.diff(rows.times_s)[[stop - 1 for _, stop in pieces[:-1]]]
    back = int((steps <= 0).sum())
    logger.warning(
        "%s: %d pauses of more than %g s, the longest of %.2f s, %d jumps back of the clock; made "
        "%d recordings of it, left out %d frames in pieces shorter than %d",
        *(rows.place, int((steps > MAX_GAP_S).sum()), MAX_GAP_S, max(0.0, steps.max()), back),
        *(len(long), len(rows.images) - sum(b - a for a, b in long), MIN_FRAMES),
    )
