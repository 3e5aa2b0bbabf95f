"""Frames per second of the kinds that draw many cells at once: whole-frame and masked.

All have 12 layers of width 768, commaVQ's grid and random weights. Against 20 frames/s, the rate
of the camera. bfloat16 is autocast.
"""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import Row, seconds
from benchmarks.gpu.profiling import profiled
from drives.tokens.store import TokenSpec
from worldmodel.decoding import Sampling
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.maskgit import MaskGIT
from worldmodel.decoding.whole_frame import WholeFrameDecoder
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.dynamics.whole_frame.model import WholeFrame

GRID, VOCAB, STEPS, CAMERA_FPS = (1, 8, 16), 1024, 20, 20.0
SHAPE = {"dim": 768, "num_layers": 12, "num_heads": 12}
TOY_GRID, TOY_SHAPE = (1, 2, 4), {"dim": 32, "num_layers": 2, "num_heads": 2}
FRAMES = 20


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    device, grid = ("cpu", TOY_GRID) if toy else ("cuda", GRID)
    spec = TokenSpec(grid, VOCAB, CAMERA_FPS, 1, (128, 256), "random")
    shape: dict[str, Any] = {**(TOY_SHAPE if toy else SHAPE), "context_steps": 4 if toy else STEPS}
    sampling = Sampling(top_k=0)
    whole = WholeFrame(WholeFrameConfig(**shape), spec, 0)
    inner = WholeFrame(WholeFrameConfig(**shape, inner_layers=2), spec, 0)
    masked = Masked(MaskedConfig(**shape), spec, 0)
    decoders: dict[str, FrameDecoder] = {
        "whole-frame": WholeFrameDecoder(whole.to(device).eval(), sampling),
        "whole-frame, 2 inner layers": WholeFrameDecoder(inner.to(device).eval(), sampling),
        "masked, MaskGIT": MaskGIT(masked.to(device).eval(), sampling),
    }
    prompt = torch.randint(0, VOCAB, (1, shape["context_steps"] - 1, *grid[1:])).to(device)
    for name, decoder in decoders.items():
        for futures in (1, 16):
            yield _row(name, decoder, prompt, futures, 2 if toy else FRAMES)
        yield profiled(decoder.next_frame, f"{name}, a frame of 16 futures")


def _row(name: str, decoder: FrameDecoder, prompt: torch.Tensor, futures: int, count: int) -> Row:
    each = {}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(prompt.device.type, dtype, enabled=dtype == torch.bfloat16):
            decoder.start(prompt, num_futures=futures)
            decoder.next_frame()
            work = seconds(lambda: [decoder.next_frame() for _ in range(count)])
        each[dtype] = work / count
    rate = futures / each[torch.bfloat16]
    return Row(
        f"{name}, {futures} futures, bfloat16",
        f"{rate:,.1f} frames/s (float32: {futures / each[torch.float32]:,.1f})",
        f"{CAMERA_FPS:.0f} frames/s",
        rate / futures / CAMERA_FPS,
        1.0,
    )
