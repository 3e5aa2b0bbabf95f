"""Benchmarks: every row is a ratio to a peer or to a limit, measured in the same process.

    python -m benchmarks                 every row
    python -m benchmarks train_step      the named ones
    python -m benchmarks --write         and append the table to docs/results.md
    python -m benchmarks gpu             all that one GPU can show (`benchmarks.gpu`)
    python -m benchmarks growth          how time and memory grow (`benchmarks.growth`)

A row module in one of the rooms offers `rows() -> Iterator[Row]` and is named in `SUITES`.
The modules beside this one are commands of their own, which train, draw or drive.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

import training  # noqa: F401  (first: it repairs torchvision, without which lightning fails)
from training.watch.clock import now

# The room of every row module.
SUITES = {
    "train_step": "training",
    "decoding": "futures",
    "busy_decoding": "futures",
    "prompts": "futures",
    "maskgit": "futures",
    "data_path": "data",
    "large_store": "data",
    "remote_data": "data",
    "video_clips": "data",
    "training_loop": "training",
    "goodput": "training",
    "peak_memory": "training",
    "head_memory": "training",
    "start_up": "training",
    "tokenizer_speed": "tokens",
    "encode": "tokens",
    "occupancy": "futures",
    "codec": "futures",
    "dream": "futures",
}


@dataclass(frozen=True)
class Row:
    """One measured comparison.

    Attributes:
        ours, theirs: our figure and the figure of the peer or limit, with units.
        ratio: ours / theirs, above 1 where we beat the peer; or the share of a limit.
        goal: target ratio; None where there is none.
        spread: lowest and highest ratio of the rounds; None where `ratio` is one of best times.
    """

    name: str
    ours: str
    theirs: str
    ratio: float
    goal: float | None = None
    spread: tuple[float, float] | None = None


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
    """Fastest of `repeats` timings of each contestant, taken in turns."""
    return {name: min(taken) for name, taken in in_rounds(contestants, repeats).items()}


def in_rounds(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """`repeats` timings of each contestant, taken in turns.

    Other processes only add time; taking turns spreads it over all contestants.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, measure in contestants.items():
            taken[name].append(measure())
    return taken


def ratios(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    """`ratio` and `spread` of a row: theirs / ours round by round; median, lowest and highest."""
    each = sorted(their / our for their, our in zip(theirs, ours, strict=True))
    return {"ratio": median(each), "spread": (each[0], each[-1])}
