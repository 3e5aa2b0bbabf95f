"""Share of a training step that waits for data at a URL, with a latency in every answer.

A store of many shards behind a local HTTP server; a step is a sleep, as on another device.
The first steps are told apart: nothing was fetched ahead of them.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import Row
from drives.sources import TokenSource
from drives.tokens.spec import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder
from worldmodel.windows import TokenWindows, collate

STEP_S, LATENCY_S, STEPS, BEGIN = 0.2, 0.1, 120, 20
DRIVES, PER_SHARD, MINUTE, BATCH = 128, 4, 1200, 8


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "there")
        with _served(Path(folder) / "there") as url:
            for workers in (0, 2):
                cache = Path(folder) / f"cache-{workers}"
                first, waited = _waited(url, cache, workers)
                name = f"waiting for windows at a URL, {LATENCY_S} s latency, {workers} workers"
                told = f"a step of {STEP_S} s (the first {BEGIN} together: {first:.2f} s)"
                yield Row(name, f"{waited * 1000:.1f} ms", told, waited / STEP_S)


def _waited(url: str, cache: Path, workers: int) -> tuple[float, float]:
    """Seconds of waiting in the first steps together, and the mean of each later step."""
    with patch("drives.tokens.store.CHECKED_AT_ONCE", 0):  # as a store of any size
        store = TokenSource(url, cache=str(cache)).open()
    windows = TokenWindows(store.drives("train"), 20)
    order = DataOrder(len(windows), STEPS, BATCH, seed=0)
    loader = OrderedLoader(windows, order, collate, workers)
    waited = [0.0]
    for _ in loader:
        waited.append(loader.wait_s)
        time.sleep(STEP_S)
    return waited[BEGIN], (waited[-1] - waited[BEGIN]) / (STEPS - BEGIN)


def _write(root: Path) -> None:
    with patch("drives.tokens.writer.PACKED_AT", PER_SHARD):
        writer = TokenStoreWriter(root, TokenSpec((1, 8, 16), 1024, 20, 1, (128, 256), "b"), ["a"])
        rng = np.random.default_rng(0)
        for number in range(DRIVES):
            tokens = rng.integers(0, 1024, (MINUTE, 8, 16), np.uint16)
            writer.write(f"{number:04d}", "train", tokens, np.zeros((MINUTE, 1)), {})


class _Slow(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(LATENCY_S)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
