"""The lag between what a table says of a turn, and what the frames show of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from drives.actions.derived import LEFT
from drives.clips.motion import scene_motion
from drives.clips.preprocessing import resize
from drives.inspect.takes import Take

MAX_OFFSET = 5  # frames
OFFSETS = tuple(range(-MAX_OFFSET, MAX_OFFSET + 1))
BLOCK, MAX_BLOCKS = 100, 12  # motions of a block, and blocks in all
MIN_BLOCKS = 4
WIDTH = 160  # pixels, at which motion is measured
MIN_CORRELATION = 0.25
NUM_RESAMPLED = 1000
_EXCUSE = ", unless it is a real car's: its wheel turns about 0.1 s before the car does"


@dataclass(frozen=True)
class Lag:
    """How a column fits the horizontal motion of the scene, when its rows are moved.

    Attributes:
        offset: motion from frame t to t+1 fits row t + offset best; 0 is right.
        low, high: 95 % interval of `offset`, by resampling blocks of time.
        correlations: at each of `OFFSETS`.
        is_sure: whether the evidence says anything: enough blocks, and a correlation of at least
            `MIN_CORRELATION` in 97.5 % of the resamplings.
    """

    column: str
    offset: int
    low: int
    high: int
    correlations: tuple[float, ...]
    num_frames: int
    is_sure: bool

    @property
    def fault(self) -> str:
        """What is wrong, in a sentence; "" where it is right or nobody knows."""
        if not self.is_sure or self.low <= 0 <= self.high:
            return ""
        how = "late" if self.offset > 0 else "early"
        early_wheel = self.column == "steering" and self.offset < 0
        rows = f"{abs(self.offset)} row{'s' * (abs(self.offset) > 1)}"
        return (
            f"{self.column} comes {rows} {how} (95 % interval {self.low} to {self.high}): the "
            f"motion from frame t to t+1 fits row t{self.offset:+d}; move the rows "
            f"{'up' if self.offset > 0 else 'down'}{_EXCUSE if early_wheel else ''}"
        )


def measure_lag(takes: Sequence[Take]) -> list[Lag]:
    """The lag of every column that steers, over blocks where the car turns most.

    Raises:
        BadInput: a frame cannot be read.
    """
    names = [name for name in LEFT if takes and all(name in take.names for take in takes)]
    if not names:
        return []
    blocks = _blocks(takes, names[0])
    motions = [_motion(take, start) for take, start in blocks]
    return [
        lag_of(name, motions, [_rows(take, name, start) for take, start in blocks])
        for name in names
    ]


def lag_of(
    column: str,
    motions: Sequence[Float[np.ndarray, " step"]],
    rows: Sequence[Float[np.ndarray, " wider"]],
) -> Lag:
    """The lag of one column; a block's rows reach `MAX_OFFSET` further than its motions."""
    # Pooled sums, not the mean of correlations: a block without a turn then weighs nothing.
    sums = np.array([_sums(m, r) for m, r in zip(motions, rows, strict=True)])
    sums = sums.reshape(-1, 3, len(OFFSETS))
    pooled = _pooled(sums.sum(axis=0))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, max(1, len(sums)), (NUM_RESAMPLED, len(sums)))
    resampled = np.array([_pooled(sums[draw].sum(axis=0)) for draw in draws])
    low, high = np.quantile(resampled.argmax(axis=1), [0.025, 0.975], method="nearest")
    strength = np.quantile(resampled.max(axis=1), 0.025)
    return Lag(
        column,
        OFFSETS[int(pooled.argmax())],
        OFFSETS[int(low)],
        OFFSETS[int(high)],
        tuple(pooled.tolist()),
        sum(len(motion) for motion in motions),
        len(sums) >= MIN_BLOCKS and bool(strength >= MIN_CORRELATION),
    )


def _sums(motion: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, "3 offset"]:
    """Products and squares about the block's means, at every offset."""
    moved = motion - motion.mean()
    windows = np.lib.stride_tricks.sliding_window_view(rows, len(motion))
    turned = windows - windows.mean(axis=1, keepdims=True)
    squares = np.full(len(OFFSETS), (moved**2).sum())
    return np.stack([turned @ moved, squares, (turned**2).sum(axis=1)])


def _pooled(sums: Float[np.ndarray, "3 offset"]) -> Float[np.ndarray, " offset"]:
    products, a, b = sums
    return products / np.maximum(np.sqrt(a * b), 1e-12)


def _blocks(takes: Sequence[Take], column: str) -> list[tuple[Take, int]]:
    """Take and first frame of the blocks where a column varies most; they do not overlap."""
    found = []
    for take in takes:
        values = take.column(column)
        stop = take.num_frames - BLOCK - 2 * MAX_OFFSET
        starts = range(MAX_OFFSET, stop + MAX_OFFSET, BLOCK)
        found += [(float(np.std(values[s : s + BLOCK])), take, s) for s in starts]
    found.sort(key=lambda entry: (-entry[0], entry[1].id, entry[2]))
    return [(take, start) for turn, take, start in found[:MAX_BLOCKS] if turn > 0]


def _rows(take: Take, column: str, start: int) -> np.ndarray:
    rows = take.column(column)[start - MAX_OFFSET : start + BLOCK + MAX_OFFSET]
    return LEFT[column] * rows.astype(np.float64)


def _motion(take: Take, start: int) -> Float[np.ndarray, " step"]:
    """Pixels per frame; positive where the scene moves right, as in a left turn."""
    frames = np.stack(list(take.read(start, start + BLOCK + 1)))
    height, width = frames.shape[1:3]
    size = (max(32, round(height * WIDTH / width)), WIDTH) if width > WIDTH else (height, width)
    return scene_motion(resize(frames, size)[None])[0].numpy().astype(np.float64)
