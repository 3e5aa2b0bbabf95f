"""Episodes of the DeepMind control suite in HDF5, as Video Occupancy Models reads them.

    observation  uint8 [row 3 * stack height width]   the newest frame is the last of its stack
    action       float [row action]                   the one that led to this row; 0 in a first row
    reward       float [row]                          of that action
    discount     float [row]
    step_type    int   [row]                          0 first, 1 mid, 2 last
    vae_latents, dino_latents   int [row token]       optional

github.com/manantomar/video-occupancy-models (no licence); V-D4RL's files have the same layout. The
files say no rate.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.importers.recordings.hdf5 import array_of, opened, rows_of
from training.errors import BadInput
from training.ranges import positive

SUFFIXES = (".hdf5", ".h5")
FIRST, MID, LAST = 0, 1, 2
BLOCK = 64  # rows of images in memory


@dataclass(frozen=True)
class DmcOptions(ImportOptions):
    """Settings of the control suite's files.

    Attributes:
        licence: of the recordings; noted in every drive.json.
        fps: rows per second; needed, for the files say none. The control suite with two repeats of
            an action: cheetah 50, walker 20.
    """

    fps: float | None = None


@dataclass(frozen=True)
class Episodes:
    """What all rows say, without the pictures.

    Attributes:
        bounds: first row, and row after the last, of every episode.
        actions: row t is in force between frame t and t+1; as the columns `names`.
    """

    bounds: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    actions: Float[np.ndarray, "row action"]


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames of an episode, which begins at row `first`."""

    path: Path
    first: int

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""
        with opened(self.path) as file:
            observation = array_of(file, "observation", "u", 4)
            begin, end = self.first + start, self.first + stop
            if end > len(observation):
                raise BadInput(f"{self.path}: ends at row {len(observation)}, not {end}")
            for low in range(begin, end, BLOCK):
                rows = rows_of(observation, low, min(low + BLOCK, end))
                yield from np.ascontiguousarray(rows[:, -3:].transpose(0, 2, 3, 1))


def find(root: Path, options: DmcOptions) -> list[Candidate]:
    """Every HDF5 file of a folder, or the file itself; BadInput where there is none."""
    paths = [root] if root.is_file() else sorted(root.glob("*"))
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise BadInput(f"{root}: holds no {' or '.join(SUFFIXES)} file; give one or its folder")
    return [Candidate(str(path), partial(read_recordings, path, options)) for path in paths]


def read_recordings(path: Path, options: DmcOptions) -> list[Recording]:
    """Every episode of a file, `<name>-0000`, ...

    Raises:
        BadInput: no --fps; a key is missing, damaged or of another shape; steps in another order;
            an episode shorter than its stack of frames.
    """
    if options.fps is None:
        raise BadInput(
            f"{path}: says no rate; give rows per second by --fps (the control suite with two "
            "repeats of an action: cheetah 50, walker 20)"
        )
    positive("--", fps=options.fps)
    with opened(path) as file:
        stack = _stack_of(file)
        episodes = read_episodes(file, stack)
        if stack > 1:
            _check_stacks(file, episodes.bounds[0])
    return [
        Recording(
            id=re.sub(r"[^\w-]+", "_", f"{path.stem}-{number:04d}"),
            source=Hdf5Frames(path, start),
            fps=float(options.fps),
            action_names=episodes.names,
            actions=episodes.actions[start:stop],
            meta={"source": f"control suite, {path.name}", "licence": options.licence},
        )
        for number, (start, stop) in enumerate(episodes.bounds)
    ]


def read_episodes(file: Any, stack: int = 1) -> Episodes:
    """Actions and rewards of all rows, moved to the frame that they follow.

    The last row of an episode explains no frame; it repeats the row before.
    """
    kinds = rows_of(array_of(file, "step_type", "iuf", 1))
    count = len(kinds)
    actions = _numbers(file, "action", 2, count)
    columns = {f"action_{i}": column for i, column in enumerate(actions.T)}
    columns["reward"] = _numbers(file, "reward", 1, count)
    discount = _numbers(file, "discount", 1, count)
    if (discount != 1).any():
        columns["discount"] = discount
    bounds = _bounds(file.filename, kinds, max(2, stack))
    values = np.stack([*columns.values()], axis=1)
    moved = np.concatenate([values[1:], values[-1:]])
    for _, stop in bounds:
        moved[stop - 1] = moved[stop - 2]
    return Episodes(bounds, tuple(columns), moved)


def _numbers(file: Any, name: str, num_axes: int, count: int) -> np.ndarray:
    values = rows_of(array_of(file, name, "fiu", num_axes)).astype(np.float64)
    if len(values) != count:
        raise BadInput(f"{file.filename}: {name} has {len(values)} rows, step_type {count}")
    bad = np.flatnonzero(~np.isfinite(values.reshape(count, -1)).all(axis=1))
    if len(bad):
        raise BadInput(f"{file.filename}: {name}: row {bad[0]} is not finite; correct it")
    return values


def _bounds(where: str, kinds: np.ndarray, least: int) -> tuple[tuple[int, int], ...]:
    """First row and row after the last of every episode."""
    wrong = np.flatnonzero(~np.isin(kinds, (FIRST, MID, LAST)))
    if len(wrong):
        raise BadInput(f"{where}: step_type of row {wrong[0]} is {kinds[wrong[0]]}; 0, 1 or 2")
    firsts = np.flatnonzero(kinds == FIRST)
    if not len(firsts) or firsts[0] != 0:
        raise BadInput(f"{where}: step_type: row 0 is not the first of an episode (0)")
    after = np.flatnonzero((kinds[:-1] == LAST) & (kinds[1:] != FIRST))
    if len(after):
        raise BadInput(f"{where}: step_type: row {after[0] + 1} goes on after a last one (2)")
    bounds = tuple(pairwise([*firsts.tolist(), len(kinds)]))
    for start, stop in bounds:
        if stop - start < least:
            raise BadInput(
                f"{where}: the episode at row {start} has {stop - start} rows; at least {least} "
                "fill a stack of frames: leave it out"
            )
    return bounds


def _stack_of(file: Any) -> int:
    observation = array_of(file, "observation", "u", 4)
    rows, channels = observation.shape[:2]
    if observation.dtype != np.uint8 or channels % 3 or min(observation.shape[2:]) < 8:
        raise BadInput(
            f"{file.filename}: observation holds {observation.dtype} of shape {observation.shape};"
            " give uint8 [row, 3 * stack, height, width]"
        )
    count = len(array_of(file, "step_type", "iuf", 1))
    if rows != count:
        raise BadInput(f"{file.filename}: observation has {rows} rows, step_type {count}")
    return int(channels) // 3


def _check_stacks(file: Any, bounds: tuple[int, int]) -> None:
    """The frame before must stand before the newest one in a stack."""
    rows = rows_of(array_of(file, "observation", "u", 4), bounds[0], bounds[0] + 2)
    if not np.array_equal(rows[0, -3:], rows[1, -6:-3]):
        raise BadInput(
            f"{file.filename}: observation: the last frame of a stack is not the newest; order "
            "them in time"
        )


FORMAT = RecordingFormat("HDF5 episodes of the DeepMind control suite", find, DmcOptions)
