"""Benchmarks: every row is a ratio to a peer or to a limit, measured in the same process.

    python -m benchmarks                 every row
    python -m benchmarks train_step      the named ones
    python -m benchmarks --write         and append the table to docs/results.md

A row module below `benchmarks/` offers `rows() -> Iterator[Row]` and is named in `SUITES`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

import training  # noqa: F401  (first: it repairs torchvision, without which lightning fails)
from training.watch.clock import now

SUITES = (
    "train_step",
    "decoding",
    "maskgit",
    "data_path",
    "large_store",
    "remote_data",
    "video_clips",
    "training_loop",
    "goodput",
    "peak_memory",
    "head_memory",
    "tokenizer_speed",
    "encode",
    "occupancy",
    "codec",
    "dream",
)


@dataclass(frozen=True)
class Row:
    """One measured comparison.

    Attributes:
        ours, theirs: our figure and the figure of the peer or limit, with units.
        ratio: ours / theirs, above 1 where we beat the peer; or the share of a limit.
        goal: target ratio; None where there is none.
    """

    name: str
    ours: str
    theirs: str
    ratio: float
    goal: float | None = None


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, including its GPU work."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = now(device)
    work()
    return now(device) - start


def cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds that one call computes in this process; those of other processes do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Fastest of `repeats` timings of each contestant, taken in turns.

    Other processes only add time; taking turns spreads it over all contestants.
    """
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(repeats):
        for name, measure in contestants.items():
            best[name] = min(best[name], measure())
    return best
