"""Signals on clocks of their own, brought to the frames of a drive."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from training.errors import BadInput
from training.ranges import one_of

MAX_GAP_S = 0.5
Kind = Literal["linear", "hold"]


@dataclass(frozen=True)
class Signal:
    """One quantity on its own clock.

    Attributes:
        name: the column's name, with its unit.
        times_s: float64 [sample], increasing; on the clock of the frames.
        values: float64 [sample].
        kind: how it lies between samples: on a line, or at the last sample (zero-order hold).
    """

    name: str
    times_s: Float[np.ndarray, " sample"] = field(repr=False)
    values: Float[np.ndarray, " sample"] = field(repr=False)
    kind: Kind = "linear"


def at_frames(
    signals: Sequence[Signal],
    frame_times_s: Float[np.ndarray, " frame"],
    max_gap_s: float = MAX_GAP_S,
    where: str = "",
    remedy: str = "cut the recording there",
) -> tuple[tuple[str, ...], Float[np.ndarray, "frame action"]]:
    """Names and one row per frame: row t is the action in force between frame t and frame t+1.

    That is the signal's mean over that time: faster signals are averaged, slower ones follow their
    `kind`. The last row covers one median step, as far as the signal is known. A logger that starts
    a little late is accepted: at most half of `max_gap_s` before the first sample, or after the
    last, that sample's value holds.

    Args:
        max_gap_s: longest time between two samples that a frame may lie in; inf for a signal that
            is logged when it changes.
        where: the file, for messages.
        remedy: what to do about a gap, for messages.

    Raises:
        BadInput: a frame lies outside of a signal or in a gap; times or values are not finite;
            times stand still or jump back. The message names the signal and the time.
    """
    frames = np.asarray(frame_times_s, np.float64)
    _check_clock(frames, "frame", where)
    names = tuple(signal.name for signal in signals)
    if len(set(names)) != len(names):
        raise BadInput(f"{where}: signals are {', '.join(names)}; give each one name of its own")
    columns = [_means(signal, frames, max_gap_s, where, remedy) for signal in signals]
    rows = np.stack(columns, axis=1) if columns else np.zeros((len(frames), 0))
    return names, rows


def check_signal(signal: Signal, where: str = "") -> None:
    """BadInput unless its times increase and all of it is finite."""
    one_of(("linear", "hold"), f"{where}: {signal.name}: ", kind=signal.kind)
    times, values = np.asarray(signal.times_s), np.asarray(signal.values)
    if times.shape != values.shape or times.ndim != 1:
        raise BadInput(
            f"{where}: {signal.name} has times of shape {times.shape} and values of shape "
            f"{values.shape}; give one number per time"
        )
    _check_clock(times, signal.name, where)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise BadInput(
            f"{where}: {signal.name} is {values[bad[0]]} at {times[bad[0]]:.3f} s (sample "
            f"{bad[0]}); leave such samples out"
        )


def _check_clock(times: np.ndarray, name: str, where: str) -> None:
    if not len(times):
        raise BadInput(f"{where}: {name} has no samples; leave it out")
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise BadInput(f"{where}: time {bad[0]} of {name} is {times[bad[0]]}; correct the clock")
    bad = np.flatnonzero(np.diff(times) <= 0)
    if len(bad):
        before, after = times[bad[0]], times[bad[0] + 1]
        how = "stands still" if after == before else "jumps back"
        raise BadInput(
            f"{where}: the clock of {name} {how} at {before:.3f} s (next is {after:.3f} s, sample "
            f"{bad[0] + 1}); sort the samples, or cut the recording there"
        )


def _means(
    signal: Signal, frames: Float[np.ndarray, " frame"], max_gap_s: float, where: str, remedy: str
) -> Float[np.ndarray, " frame"]:
    check_signal(signal, where)
    times = np.asarray(signal.times_s, np.float64)
    values = np.asarray(signal.values, np.float64)
    _check_covered(signal.name, times, frames, max_gap_s, where, remedy)
    step = float(np.median(np.diff(frames))) if len(frames) > 1 else 0.0
    end = max(frames[-1], min(frames[-1] + step, times[-1]))
    edges = np.append(frames, end)
    # Between two of these times the signal is a straight line, so the integral is exact.
    knots = np.unique(np.concatenate([edges, times]))
    knots = knots[(knots >= edges[0]) & (knots <= edges[-1])]
    if signal.kind == "hold":
        held = values[np.maximum(np.searchsorted(times, knots, side="right") - 1, 0)]
        heights = held[:-1]
    else:
        on_line = np.interp(knots, times, values)
        held, heights = on_line, (on_line[:-1] + on_line[1:]) / 2
    starts = np.searchsorted(knots, frames)
    if end == frames[-1]:  # nothing is known behind the last frame
        rows = np.append(_interval_means(heights, knots, starts[:-1]), held[-1])
    else:
        rows = _interval_means(heights, knots, starts)
    return rows


def _interval_means(heights: np.ndarray, knots: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Means of the pieces between `knots`, joined from each of `starts` to the next."""
    if not len(starts):
        return np.zeros(0)
    widths = np.diff(knots)
    return np.add.reduceat(heights * widths, starts) / np.add.reduceat(widths, starts)


def _check_covered(
    name: str, times: np.ndarray, frames: np.ndarray, max_gap_s: float, where: str, remedy: str
) -> None:
    late = max(times[0] - frames[0], frames[-1] - times[-1])
    if late > max_gap_s / 2 or frames[0] > times[-1] or frames[-1] < times[0]:
        outside = frames[(frames < times[0] - max_gap_s / 2) | (frames > times[-1] + max_gap_s / 2)]
        at = outside[0] if len(outside) else frames[0]
        raise BadInput(
            f"{where}: {name} is known from {times[0]:.3f} to {times[-1]:.3f} s, and a frame is at "
            f"{at:.3f} s; put both on one clock, or cut the frames to that time"
        )
    gaps = np.flatnonzero(np.diff(times) > max_gap_s)
    # A row covers the time from its frame to the next: it meets every gap that begins before that.
    inside = [i for i in gaps if times[i] < frames[-1] and times[i + 1] > frames[0]]
    if inside:
        raise BadInput(
            f"{where}: {name} has no sample between {times[inside[0]]:.3f} and "
            f"{times[inside[0] + 1]:.3f} s, longer than {max_gap_s:g} s, and frames lie there; "
            f"{remedy}"
        )
