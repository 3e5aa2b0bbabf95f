"""Windows of frames some steps apart, the rows that led to the last; what the car did there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from training.loading.spread import spread
from worldmodel.evaluation.attainable.config import MAX_LAG

Column = Float[np.ndarray, " column"]
TURNS = ("yaw_rate_rad_s", "curvature_per_m", "steering")  # the first that is there
PAST_ROWS = MAX_LAG
STANDING_MPS, BRAKE, SLOWING_MPS2 = 0.3, 0.1, 1.0


class Asked(NamedTuple):
    """A batch of windows: the frames, and the row that led to the last of them.

    Attributes:
        tokens: token grids; rows of the grid of a step with several grids lie below each other.
        past: the `PAST_ROWS` rows before those that lead to the last frame.
        before: the mean of as many of these as lead to it.
        row: the mean of the rows that lead to the last frame.
    """

    tokens: Int[Tensor, "window time height width"]
    past: Float[Tensor, "window row column"]
    before: Float[Tensor, "window column"]
    row: Float[Tensor, "window column"]

    def to(self, device: str) -> "Asked":
        return Asked(*(part.to(device) for part in self))


class HorizonWindows:
    """Every window of `context` frames that lie `horizon` time steps apart.

    Rows are moved by `lag` rows, in units of the standard deviation of the train drives.

    Args:
        mean, scale: of every action column.

    Raises:
        BadInput: no drive is long enough.
    """

    def __init__(
        self,
        drives: Sequence[TokenDrive],
        context: int,
        horizon: int,
        lag: int,
        mean: Column,
        scale: Column,
    ) -> None:
        self.drives, self.context, self.horizon, self.lag = list(drives), context, horizon, lag
        self.mean, self.scale, self.span = mean, scale, (context - 1) * horizon
        # Rows are left out at both ends for every lag alike: all lags see the same frames.
        lengths = [len(drive.tokens) - self.span - 2 * MAX_LAG for drive in self.drives]
        self.ends = np.cumsum([max(0, length) for length in lengths])
        if not len(self):
            raise BadInput(
                f"windows of {context} frames, {horizon} steps apart, are longer than every drive; "
                "lower probe.horizons or bring longer drives"
            )

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def place(self, index: int) -> tuple[TokenDrive, int]:
        """The drive of a window, and the step of its first frame."""
        drive = int(np.searchsorted(self.ends, index, side="right"))
        before = int(self.ends[drive - 1]) if drive else 0
        return self.drives[drive], index - before + MAX_LAG

    def spread(self, num: int, first: int = 0, every: int = 1) -> list[int]:
        """At most `num` windows, evenly spread over those with `index % every == first`."""
        there = range(first, len(self), every)
        return [there[place] for place in spread(len(there), num)]

    def batch(self, ids: Sequence[int]) -> Asked:
        """These windows."""
        tokens, past, row = (np.stack(part) for part in zip(*map(self._window, ids), strict=True))
        grids = torch.from_numpy(tokens.astype(np.int64))
        grids = grids.reshape(*grids.shape[:2], -1, grids.shape[-1])
        before = past[:, -self.horizon :].mean(1)
        return Asked(grids, *(torch.from_numpy(part).float() for part in (past, before, row)))

    def batches(self, ids: Sequence[int], size: int = 128) -> Iterator[Asked]:
        """The windows in batches of `size`."""
        for start in range(0, len(ids), size):
            yield self.batch(ids[start : start + size])

    def _window(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drive, start = self.place(index)
        steps = start + self.horizon * np.arange(self.context)
        first = start + self.span - self.horizon + self.lag  # of the rows to the last frame
        past = np.maximum(first + np.arange(-PAST_ROWS, 0), 0)
        leading = drive.actions[first : first + self.horizon]
        row = (leading.mean(0, dtype=np.float64) - self.mean) / self.scale
        return drive.tokens[steps], (drive.actions[past] - self.mean) / self.scale, row

    def led_by(self, ids: Sequence[int]) -> Float[np.ndarray, "window horizon column"]:
        """The unmoved rows that lead to the last frame of each window, as recorded."""
        found = []
        for index in ids:
            drive, start = self.place(index)
            end = start + self.span
            found.append(drive.actions[end - self.horizon : end])
        return np.stack(found)


def statistics(drives: Sequence[TokenDrive]) -> tuple[Column, Column]:
    """Mean and standard deviation of every column over all rows; 1 where a column is constant."""
    rows = np.concatenate([np.asarray(drive.actions, np.float64) for drive in drives])
    scale = rows.std(0)
    return rows.mean(0), np.where(scale > 0, scale, 1.0)


def situations(
    names: Sequence[str],
    rows: Float[np.ndarray, "window horizon column"],
    scale: Column,
    steps_per_s: float,
) -> Mapping[str, np.ndarray]:
    """Which windows show the car standing, braking, in a curve, or going straight.

    A window is in the first that fits. Only those are told whose columns are there.

    Args:
        rows: those that lead to the predicted frame.
        scale: standard deviation of every column; a curve turns harder than one.
    """
    left, found = np.ones(len(rows), bool), {}

    def keep(name: str, fits: np.ndarray) -> None:
        nonlocal left
        found[name], left = left & fits, left & ~fits

    columns = {name: rows[..., index] for index, name in enumerate(names)}
    slowing = np.zeros(len(rows), bool)
    if (speed := columns.get("speed_mps")) is not None:
        keep("standing", speed.mean(1) < STANDING_MPS)
        if speed.shape[1] > 1:
            seconds = (speed.shape[1] - 1) / steps_per_s
            slowing = (speed[:, 0] - speed[:, -1]) / seconds > SLOWING_MPS2
    if (brake := columns.get("brake")) is not None:
        keep("braking", (brake.mean(1) > BRAKE) | slowing)
    if turn := next((name for name in TURNS if name in columns), None):
        hard = np.abs(columns[turn].mean(1)) > scale[list(names).index(turn)]
        keep("curve", hard)
        keep("straight", left)
    return found
