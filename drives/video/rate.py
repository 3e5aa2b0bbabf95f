"""Whether a rate is true: frames on a grid of equal steps, whatever number of them is missing."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from drives.video.gaps import Drop
from drives.video.index import frame_rate, num_frames, times_s
from training.errors import BadInput
from training.ranges import positive

SAME_RATE = 0.01  # share by which rates may differ and still be one: 29.97, 30 and 30.04
MAX_HOLES = 0.1  # share of times without a frame that resampling takes
ROUNDING = 1e-6  # steps
LATE = 0.5  # steps by which a frame may miss the grid
MAX_MISSING = 0.5  # share of the grid; with more, the steps are no steps


class Sampled(NamedTuple):
    """Which frames of a recording make another rate, and where that rate has none."""

    picks: Int64[np.ndarray, " picked"]
    drops: tuple[Drop, ...]


def frame_times(video: Path) -> Float64[np.ndarray, " frame"]:
    """Seconds from the first frame to each: by time stamps, else by the container's rate.

    Raises:
        BadInput: the video cannot be read, or has neither.
    """
    found, fps = times_s(video), frame_rate(video)
    if found is not None:
        return found
    if not fps:
        raise BadInput(f"{video}: has neither time stamps nor a frame rate; give --fps N")
    return np.arange(num_frames(video)) / fps


def grid_rate(times_s: Float[np.ndarray, " frame"]) -> float | None:
    """Frames per second of the grid that frames lie on; None where their rate varies.

    Frames may be missing from the grid. Each may be half a step beside it, and clocks may drift by
    `SAME_RATE`.
    """
    steps = np.diff(times_s)
    if not len(steps) or not (steps > 0).all():
        return None
    numbers = np.append(0, np.cumsum(np.rint(steps / np.median(steps))))
    if (np.diff(numbers) < 1).any() or len(steps) < (1 - MAX_MISSING) * numbers[-1]:
        return None
    step, first = np.polyfit(numbers, times_s - times_s[0], 1)
    beside = np.abs(times_s - times_s[0] - first - step * numbers).max()
    return 1 / float(step) if beside <= LATE * step + SAME_RATE * step * len(steps) else None


def same_rate(a: float, b: float) -> bool:
    return abs(a / b - 1) <= SAME_RATE


def describe_rate(times_s: Float[np.ndarray, " frame"]) -> str:
    """ "its rate varies: steps from 0.066 to 0.200 s"."""
    steps = np.diff(times_s)
    return f"its rate varies: steps from {steps.min():.3f} to {steps.max():.3f} s"


def resampled(
    times_s: Float[np.ndarray, " frame"], fps: float, where: str = ""
) -> tuple[Int64[np.ndarray, " picked"], list[Drop]]:
    """Which recorded frames make a recording of `fps`, and where it has none.

    That is the frame nearest to each n / fps from the first on, less than half a step beside it.

    Raises:
        BadInput: more than `MAX_HOLES` of those times have no frame, as in a slower recording.
    """
    positive(fps=fps)
    times = times_s - times_s[0]
    wanted = np.arange(int(np.floor(times[-1] * fps + ROUNDING)) + 1)
    right = np.clip(np.searchsorted(times * fps, wanted), min(1, len(times) - 1), len(times) - 1)
    left = np.maximum(right - 1, 0)
    before, after = (np.abs(times[side] * fps - wanted) for side in (left, right))
    nearer = before <= after + ROUNDING
    picks = np.where(nearer, left, right)
    has = np.abs(times[picks] * fps - wanted) < LATE - ROUNDING
    if not len(times) or (~has).mean() > MAX_HOLES:
        measured = (len(times) - 1) / times[-1] if len(times) > 1 else 0.0
        raise BadInput(
            f"{where}: has {measured:.3g} frames per second, too few for fps={fps:g} "
            f"({(~has).sum()} of {len(wanted)} times have no frame); give a lower fps"
        )
    found = wanted[has]
    holes = np.flatnonzero(np.diff(found) > 1)
    return picks[has], [Drop(int(i), int(found[i + 1] - found[i] - 1)) for i in holes]


def rows_over(
    actions: Float[np.ndarray, "frame action"],
    times_s: Float[np.ndarray, " frame"],
    picks: Int64[np.ndarray, " picked"],
) -> Float[np.ndarray, "picked action"]:
    """The rows of picked frames: means, over time, of what held until the next of them.

    Of a constant rate and every n-th frame that is the mean of n rows.
    """
    widths = np.diff(times_s)
    widths = np.append(widths, np.median(widths) if len(widths) else 1.0)
    sums = np.add.reduceat(actions * widths[:, None], picks, axis=0)
    return sums / np.add.reduceat(widths, picks)[:, None]
