"""Points of the four curves; each curve is measured in a process of its own.

    python -m benchmarks.growth.curves context        one curve, as JSON

CPU seconds, because they do not change with what else runs. Memory is what the process grows by, at
its peak; MALLOC_MMAP_THRESHOLD_ makes glibc give back what is freed.
"""

import gc
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import cpu_seconds
from benchmarks.data import large_store
from benchmarks.training.peak_memory import status
from drives.tokens.spec import TokenSpec
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

GRID, DIM, LAYERS, HEADS = (8, 16), 256, 4, 4
FRAMES, VOCAB = 4, 1024


@dataclass(frozen=True)
class Point:
    seconds: float
    megabytes: float


def model_of(frames: int, vocab: int) -> GPT:
    spec = TokenSpec((1, *GRID), vocab, 20.0, 1, (128, 256), "random")
    config = GPTConfig(dim=DIM, num_layers=LAYERS, num_heads=HEADS, context_steps=frames)
    return GPT(config, spec, 0)


def step(frames: int, vocab: int) -> Point:
    """Forward and backward pass of one window."""
    model = model_of(frames, vocab)
    tokens = torch.randint(0, vocab, (1, frames, *GRID))
    return measured(lambda: model.loss(tokens).backward())


def futures(count: int) -> Point:
    """One frame of so many futures of one prompt, which is read once."""
    decoder = Decoder(model_of(FRAMES + 1, VOCAB).eval())
    prompt = torch.randint(0, VOCAB, (1, FRAMES, *GRID))

    def frame() -> None:
        decoder.start(prompt, num_futures=count)
        decoder.next_frame()

    return measured(frame)


def drives(minutes: int) -> Point:
    """Opening a token store of so many drives of a minute, and its first batch."""
    with tempfile.TemporaryDirectory() as folder:
        found = large_store.measured(Path(folder) / "store", minutes)
    return Point(found["start_cpu_s"], found["own_mb"])


def measured(work: Callable[[], object]) -> Point:
    """The second run of the work: time, and the growth of the process at its peak."""
    work()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    taken = cpu_seconds(work)
    return Point(taken, (status("VmHWM") - before) / 1e6)


@dataclass(frozen=True)
class Curve:
    """What grows, over which values, and how the growth should be."""

    title: str
    values: tuple[int, ...]
    at: Callable[[int], Point]
    why: str


CURVES = {
    "context": Curve(
        "frames of context: a training step of one window",
        (2, 4, 8, 16, 32),
        lambda frames: step(frames, VOCAB),
        "attention is quadratic in time, in memory it is linear",
    ),
    "vocabulary": Curve(
        "vocabulary: a training step of one window",
        (1024, 4096, 16_384, 65_536),
        lambda vocab: step(FRAMES, vocab),
        "the head is linear in time; the loss holds the logits of a chunk",
    ),
    "drives": Curve(
        "drives of a minute: opening their store, and the first batch",
        (100, 1000, 10_000),
        drives,
        "an index is read, no file of a drive",
    ),
    "futures": Curve(
        "futures of one prompt: one frame of each",
        (1, 2, 4, 8, 16),
        futures,
        "weights and the prompt are read once for all, what follows once for each",
    ),
}


def main(name: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    curve = CURVES[name]
    points = [vars(curve.at(value)) for value in curve.values]
    print(json.dumps(points))


if __name__ == "__main__":
    main(sys.argv[1])
