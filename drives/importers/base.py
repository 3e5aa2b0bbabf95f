"""Imports foreign recordings: one adapter per format finds them, this module writes the drives.

A recording is cut into contiguous blocks of time, one per split, so that no test frame is a
training frame. Everything is checked before the first drive is written. An existing drive is
kept if it is equal; nothing is overwritten.
"""

import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tqdm import tqdm

from drives.drive import open_drive
from drives.importers.recording import Recording
from drives.splits.base import SPLITS
from drives.writing import RECORDED, write_drive
from training.disk.leftovers import sweep_leftovers
from training.disk.places import folder_name
from training.errors import BadInput
from training.loading.pools import START_METHOD, process_pool
from training.ranges import at_least

logger = logging.getLogger(__name__)

MAX_SIDE = 8192  # pixels; players of H.264 take no more
MIN_BLOCK = 2  # frames; a single one has no future


@dataclass(frozen=True)
class Chunk:
    """Frames `start <= i < stop` of a recording: one drive to be."""

    recording: Recording
    split: str
    start: int
    stop: int
    size: tuple[int, int] | None

    @property
    def id(self) -> str:
        return f"{self.recording.id}-{self.split}"

    @property
    def actions(self) -> Float[np.ndarray, "frame action"]:
        return self.recording.actions[self.start : self.stop].astype(np.float32)

    @property
    def meta(self) -> dict[str, Any]:
        place = {"split": self.split, "source_frames": [self.start, self.stop]}
        resized = {"size": list(self.size)} if self.size else {}
        about = self.recording.about(self.start, self.stop)
        return {"fps": self.recording.fps, **about, **place, **resized}

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for frame in self.recording.read(self.start, self.stop):
            yield frame if self.size is None else cover(frame, self.size)


def import_recordings(
    recordings: Sequence[Recording],
    out: Path,
    size: tuple[int, int] | None = None,
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
    num_workers: int = 0,
    left_out: list[str] | None = None,
) -> list[Path]:
    """Write every recording as up to three drives below `out`.

    Args:
        size: (height, width) in pixels of the stored frames: scaled to cover, centre cropped.
        splits: shares of train, val and test; a share of 0 leaves that split out.
        num_workers: processes that decode and encode; 0 works in this one.
        left_out: gets the reason why a recording was left out; None: the first one ends it.

    Returns:
        The drive folders, including those of an earlier run.

    Raises:
        BadInput: a recording cannot be used, or `out` holds other drives of these names.
    """
    check_options(size, splits, num_workers)
    blocks = []
    for recording in recordings:
        try:
            blocks += _cut(recording, splits, size)
        except BadInput as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    names = Counter(block.id for block in blocks)
    double = next((block.recording.id for block in blocks if names[block.id] > 1), None)
    if double is not None:
        raise BadInput(f"two recordings are called {double!r}; rename one")
    todo = [block for block in blocks if not _is_kept(block, out / block.id)]
    kept = len(blocks) - len(todo)
    if kept:
        logger.info("%s: %d of %d drives are there already and kept", out, kept, len(blocks))
    out.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(out)
    bad = _run("checking", todo, None, num_workers, left_out)
    blocks = [block for block in blocks if block.recording.id not in bad]
    todo = [block for block in todo if block.recording.id not in bad]
    _run("writing", todo, out, num_workers)
    return [out / block.id for block in blocks]


def cover(
    frame: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Scale to cover `size` (height, width), then crop the centre; antialiased."""
    height, width = frame.shape[:2]
    if (height, width) == size:
        return frame
    scale = min(height / size[0], width / size[1])
    top, left = (height - size[0] * scale) / 2, (width - size[1] * scale) / 2
    # Pillow's filters widen with the scale, so this averages over all replaced pixels.
    image = Image.fromarray(frame).resize(
        (size[1], size[0]),
        Image.Resampling.BILINEAR,
        box=(left, top, left + size[1] * scale, top + size[0] * scale),
    )
    return np.asarray(image)


def check_options(
    size: tuple[int, int] | None, splits: tuple[float, float, float], num_workers: int
) -> None:
    """BadInput for arguments that `import_recordings` cannot take."""
    if size is not None and not 8 <= min(size) <= max(size) <= MAX_SIDE:
        raise BadInput(f"size is {size}; give height and width from 8 to {MAX_SIDE} pixels")
    if not (min(splits) >= 0 and abs(sum(splits) - 1) <= 1e-6 and len(splits) == len(SPLITS)):
        raise BadInput(f"splits are {splits}; give three shares (train val test) that sum to 1")
    at_least(0, num_workers=num_workers)


def _cut(
    recording: Recording, splits: tuple[float, float, float], size: tuple[int, int] | None
) -> list[Chunk]:
    """Contiguous blocks of time, train first."""
    folder_name(f"{recording.meta['source']}: recording", recording.id)  # from a file of strangers
    num_frames = len(recording.actions)
    shares = [float(split == recording.split) for split in SPLITS] if recording.split else splits
    edges = [0, *(round(float(share) * num_frames) for share in np.cumsum(shares))]
    blocks = [
        Chunk(recording, split, start, stop, size)
        for split, share, start, stop in zip(SPLITS, shares, edges[:-1], edges[1:], strict=True)
        if share > 0
    ]
    for block in blocks:
        if block.stop - block.start < MIN_BLOCK:
            raise BadInput(
                f"{recording.id}: its {num_frames} frames leave {block.stop - block.start} for "
                f"{block.split}; give --split other shares or leave the recording out"
            )
    return blocks


def _is_kept(block: Chunk, path: Path) -> bool:
    """Whether the drive exists; BadInput where another drive has its name."""
    if not path.exists():
        return False
    drive = open_drive(path)
    meta = {key: value for key, value in drive.meta.items() if key not in RECORDED}
    same = meta == block.meta and drive.action_names == block.recording.action_names
    if not same or not np.array_equal(drive.actions, block.actions):
        raise BadInput(
            f"{path}: exists already and is another drive (other source, split, size or actions); "
            "nothing is overwritten, choose another folder"
        )
    return True


def _run(
    what: str,
    blocks: list[Chunk],
    out: Path | None,
    num_workers: int,
    left_out: list[str] | None = None,
) -> set[str]:
    """Check the blocks (`out` is None) or write them, and show how many frames are done.

    Returns:
        Ids of recordings with a bad block, whose reasons `left_out` gets.
    """
    done: Synchronized[int] = multiprocessing.get_context(START_METHOD).Value("q", 0)
    total = sum(block.stop - block.start for block in blocks)
    opened: AbstractContextManager[Executor]
    if num_workers:
        opened = process_pool(min(num_workers, max(1, len(blocks))), _start, done)
    else:
        opened = ThreadPoolExecutor(1, initializer=_start, initargs=(done,))
    bad: dict[str, str] = {}
    with opened as pool, tqdm(total=total, desc=what, unit="frame", disable=not blocks) as bar:
        futures = {pool.submit(_process, block, out): block for block in blocks}
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.3, return_when=FIRST_EXCEPTION)
            bar.update(done.value - bar.n)
            if left_out is None and any(future.exception() for future in finished):
                pool.shutdown(cancel_futures=True)
                break
        for future, block in futures.items():
            try:
                if not future.cancelled():
                    future.result()
            except BadInput as error:
                if left_out is None:
                    raise
                bad.setdefault(block.recording.id, str(error))
    if left_out is not None:
        left_out += bad.values()
    return set(bad)


_done: "Synchronized[int]"  # finished frames of all workers together


def _start(done: "Synchronized[int]") -> None:
    global _done
    _done = done


def _process(block: Chunk, out: Path | None) -> None:
    """Decode a block, and write it where `out` is given."""
    if out is not None:
        names = block.recording.action_names
        write_drive(out / block.id, _counted(block.frames()), block.actions, names, block.meta)
        return
    sizes = {frame.shape for frame in _counted(replace(block, size=None).frames())}
    if len(sizes) > 1:
        raise BadInput(
            f"{block.recording.meta['source']}: frames have several sizes ({sorted(sizes)}); "
            "give frames of one size"
        )


def _counted(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        with _done.get_lock():
            _done.value += 1
