"""Speed of reading token windows, against a plain memory-mapped array."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import Row, interleaved
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder
from worldmodel.data import TokenWindows, collate

STEPS, DRIVES, CONTEXT, BATCH, BATCHES = 1200, 8, 16, 32, 200


def rows() -> Iterator[Row]:
    """Batches through store, order, loader and collate; the peer slices one array by hand."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spec = TokenSpec((1, 8, 16), 1024, 20.0, 1, (128, 256), "benchmark")
        writer = TokenStoreWriter(root / "store", spec, ["speed_mps"])
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, 1024, (DRIVES, STEPS, 8, 16)).astype(np.uint16)
        for index, drive in enumerate(tokens):
            writer.write(f"d{index}", "train", drive, rng.random((STEPS, 1)))
        windows = TokenWindows(TokenStore(root / "store").drives("train"), CONTEXT)
        np.save(root / "flat.npy", tokens.reshape(-1, 8, 16))
        flat = np.load(root / "flat.npy", mmap_mode="r")

        def ours() -> float:
            order = DataOrder(len(windows), BATCHES, BATCH, seed=0)
            return _seconds_per_window(iter(OrderedLoader(windows, order, collate)))

        best = interleaved(
            {"ours": ours, "peer": lambda: _seconds_per_window(_by_hand(flat, rng))}, repeats=5
        )
    yield Row(
        f"windows of {CONTEXT} x 128 tokens from disk, batch {BATCH}",
        f"{1 / best['ours']:.0f} windows/s",
        f"numpy memmap by hand, {1 / best['peer']:.0f}",
        best["peer"] / best["ours"],
    )


def _seconds_per_window(batches: Iterator[object]) -> float:
    next(batches)
    began, count = time.perf_counter(), 0
    for _ in batches:
        count += BATCH
    return (time.perf_counter() - began) / count


def _by_hand(flat: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(BATCHES):
        starts = rng.integers(0, len(flat) - CONTEXT, BATCH)
        yield np.stack([flat[s : s + CONTEXT].astype(np.int64) for s in starts])
