"""Speed of reading token windows, against nanoGPT's loop over a memory-mapped array.

One process, as one worker is: everything is on that a run uses (actions, weights, checked files,
the exact order), against a loop that draws places and copies tokens.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import Row, interleaved
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder, Weights
from worldmodel.windows import TokenWindows, collate

STEPS, DRIVES, BATCHES, WARM_UP, REPEATS = 1200, 64, 200, 8, 10
SHAPES = ((20, 12), (16, 32), (2, 32))  # frames of 128 tokens, windows per batch
GOAL = 0.7


def rows() -> Iterator[Row]:
    """Batches through store, order, loader and collate."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spec = TokenSpec((1, 8, 16), 1024, 20.0, 1, (128, 256), "benchmark")
        writer = TokenStoreWriter(root / "store", spec, ["speed_mps", "yaw_rate_rad_s"])
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, 1024, (DRIVES, STEPS, 8, 16)).astype(np.uint16)
        for index, drive in enumerate(tokens):
            writer.write(f"d{index}", "train", drive, rng.random((STEPS, 2)))
        tokens.tofile(root / "train.bin")
        drives = TokenStore(root / "store").drives("train")
        for frames, batch in SHAPES:
            yield from _rows(TokenWindows(drives, frames), root / "train.bin", batch)


def _rows(windows: TokenWindows, flat: Path, batch: int) -> Iterator[Row]:
    weights = Weights(np.random.default_rng(0).random(len(windows)) + 0.5)

    def ours(num_workers: int) -> float:
        order = DataOrder(len(windows), BATCHES, batch, seed=0, weights=weights)
        return _seconds_per_batch(OrderedLoader(windows, order, collate, num_workers))

    block = windows.num_steps * 128
    contestants: dict[str, Callable[[], float]] = {
        "this process": lambda: ours(0),
        "one worker": lambda: ours(1),
        "nanoGPT's get_batch": lambda: _seconds_per_batch(_nanogpt(flat, block, batch)),
        "numpy's slices alone": lambda: _seconds_per_batch(_slices(flat, block, batch)),
    }
    best = interleaved(contestants, REPEATS)
    rate = {name: batch * block / time_s / 1e6 for name, time_s in best.items()}
    ours_by, peers = list(rate)[:2], list(rate)[2:]
    for how, peer in [(how, peer) for how in ours_by for peer in peers]:
        yield Row(
            f"windows of {windows.num_steps} x 128 tokens with actions, weights, checked files "
            f"and exact resume, batch {batch}, by {how}",
            f"{rate[how]:.1f} M tokens/s",
            f"{peer}, {rate[peer]:.1f}",
            rate[how] / rate[peer],
            GOAL if peer == peers[0] else None,
        )


def _seconds_per_batch(loader: Iterable[object]) -> float:
    batches = iter(loader)
    for _ in range(WARM_UP):
        next(batches)
    began, count = time.perf_counter(), 0
    for _ in batches:
        count += 1
    return (time.perf_counter() - began) / count


def _nanogpt(file: Path, block: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """As its train.py does, with a new map for every batch (github.com/karpathy/nanoGPT, MIT)."""
    for _ in range(BATCHES):
        data = np.memmap(file, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - block, (batch,))
        x, y = (
            torch.stack(
                [torch.from_numpy(data[i + o : i + o + block].astype(np.int64)) for i in starts]
            )
            for o in (0, 1)
        )
        yield x, y


def _slices(file: Path, block: int, batch: int) -> Iterator[np.ndarray]:
    """Less than any training needs: one map, inputs alone."""
    data = np.memmap(file, dtype=np.uint16, mode="r")
    rng = np.random.default_rng(0)
    for _ in range(BATCHES):
        starts = rng.integers(0, len(data) - block, batch)
        yield np.stack([data[i : i + block].astype(np.int64) for i in starts.tolist()])
