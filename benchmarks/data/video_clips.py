"""Random clips from videos: is decoding faster than a GPU's step?"""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import Row, cpu_seconds, interleaved, seconds
from drives.clips.data_module import ClipDataset, collate
from drives.clips.frame_cache import FrameCache, VideoFrames
from drives.folder import open_drives
from drives.writing import write_drive
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder

BATCH, SIZE, DRIVES, FRAMES = 16, (128, 256), 4, 400  # batch and size of tokenizer_base
# 9.2 TFLOP of tokenizer_base's autoencoder for 16 frames (3 x forward; its `flops_per_frame`),
# 1.3 of VGG LPIPS, at 40 % of the dense bf16 peak of an A100 (312 TFLOP/s).
STEP_S = (9.2e12 + 1.3e12) / (0.4 * 312e12)
STEPS, WARM_UP, LIMIT = 120, 5, 0.02
CLIPS = {1: 160, 16: 48}  # clips to decode, by their frames


def rows() -> Iterator[Row]:
    """The loop sleeps during the step, so that only decoding needs the cores."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder) / "drives")
        alone = seconds(lambda: [dataset[i] for i in range(0, len(dataset), 53)])
        per_clip = alone / len(range(0, len(dataset), 53))
        yield from _against_pyav(dataset, Path(folder) / "frames")
        shares = {taken: wait_share(dataset, cores, taken) for taken in (True, False)}
    needed = BATCH * per_clip / STEP_S
    for in_thread, share in shares.items():
        by = "a thread, as where memory is pinned" if in_thread else "the loop itself"
        yield Row(
            f"clips from 128x256 H.264, keyframe every 16, {cores} workers, a step of "
            f"tokenizer_base assumed to take {STEP_S * 1e3:.0f} ms (A100 at 40 %), batches taken "
            f"over by {by}",
            f"{share:.2%} of the time waiting; {per_clip * 1e3:.1f} ms of a core per clip, "
            f"so {needed:.1f} cores needed",
            f"limit {LIMIT:.0%}",
            LIMIT / max(share, 1e-4),
            1.0 if in_thread else None,
        )


def _against_pyav(dataset: ClipDataset, kept: Path) -> Iterator[Row]:
    """The same clips in the same order, through the loader and by PyAV alone."""
    cache = FrameCache(kept, SIZE)
    cache.prepare(dataset.drives, 1)
    files = {drive.id: drive.source for drive in dataset.drives}
    for clip_frames, count in CLIPS.items():
        by = {
            name: ClipDataset(dataset.drives, frames, clip_frames, ["steering"])
            for name, frames in (("cache", cache), ("video", dataset.cache))
        }
        places = [by["video"].describe(i) for ids in _order(by["video"], count) for i in ids]
        contestants = {
            name: partial(cpu_seconds, partial(_read, clips, count)) for name, clips in by.items()
        }
        contestants["PyAV"] = partial(cpu_seconds, partial(_by_hand, places, files))
        best = interleaved(contestants, repeats=5)
        for name in by:
            yield Row(
                f"random clips of {clip_frames} frames of 128x256, data.frames={name}, checked, "
                "same pixels on every CPU, per core",
                f"{count / best[name]:.0f} clips/s",
                f"PyAV alone from H.264, keyframe every 16, {count / best['PyAV']:.0f}",
                best["PyAV"] / best[name],
                0.9,
            )


def _read(clips: ClipDataset, count: int) -> None:
    for _ in OrderedLoader(clips, _order(clips, count), collate):
        pass


def _by_hand(places: list[dict[str, Any]], files: dict[str, Path]) -> None:
    for place in places:
        _decoded(files[place["drive"]], *place["frames"])


def _order(clips: ClipDataset, count: int) -> DataOrder:
    return DataOrder(len(clips), count // BATCH, BATCH, seed=0)


def _decoded(file: Path, first: int, last: int) -> np.ndarray:
    """Frames of a video by PyAV: seek, decode, convert."""
    frames = []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        rate = float(stream.average_rate)
        container.seek(int(first / rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            number = round(frame.pts * stream.time_base * rate)
            if number >= first:
                frames.append(frame.to_ndarray(format="rgb24"))
            if number == last:
                return np.stack(frames)
    raise ValueError(f"{file} ends before frame {last}")


def wait_share(dataset: ClipDataset, num_workers: int, in_thread: bool) -> float:
    """Share of time that a loop with steps of `STEP_S` waits, after its first steps.

    On a GPU, a thread of torch receives and pins the workers' batches; without a GPU the loop
    itself opens a socket for every tensor. `in_thread` is that thread without the pinning.
    """
    order = DataOrder(len(dataset), STEPS, BATCH, seed=0)
    batches: Iterator[object] = iter(OrderedLoader(dataset, order, collate, num_workers))
    if in_thread:
        batches = _taken_over(batches)
    began = waited = 0.0
    for step in range(STEPS):
        asked = time.perf_counter()
        next(batches)
        got = time.perf_counter()
        if step == WARM_UP:  # workers have started
            began, waited = got, 0.0
        waited += got - asked if step > WARM_UP else 0.0
        time.sleep(STEP_S)
    return waited / (time.perf_counter() - began)


def _taken_over(batches: Iterator[object]) -> Iterator[object]:
    """The same batches, each received while the loop works on the one before."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _dataset(root: Path) -> ClipDataset:
    """Panning texture: as hard to decode as a moving camera."""
    rng = np.random.default_rng(0)
    for drive in range(DRIVES):
        coarse = rng.integers(0, 256, (40, 80, 3), np.uint8)
        texture = coarse.repeat(16, 0).repeat(16, 1)[:, : SIZE[1] + FRAMES]
        frames = (texture[:128, i : i + SIZE[1]] for i in range(FRAMES))
        write_drive(
            root / str(drive), frames, np.zeros((FRAMES, 1)), ["steering"],
            {"fps": 20, "split": "train"},
        )  # fmt: skip
    return ClipDataset(open_drives(root), VideoFrames(SIZE), 1, ["steering"])
