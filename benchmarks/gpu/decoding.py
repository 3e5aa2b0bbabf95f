"""Decoding at the shape of commaVQ's GPT on a GPU, in bfloat16, over full contexts.

Frames are drawn one after the other beyond the context, so the re-reading of a full context counts.
Limits: 20 frames/s, the rate of the camera, and a plain read of weights and cache per token.
Weights are random.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import Row, seconds
from benchmarks.gpu.profiling import profiled
from drives.tokens.store import TokenSpec
from training.machine import read_bandwidth
from worldmodel.decoding import Sampling
from worldmodel.decoding.diagonal import DiagonalDecoder
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics import attention
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

GRID, VOCAB, STEPS, CAMERA_FPS = (1, 8, 16), 1024, 20, 20.0
SHAPE = {"dim": 1024, "num_layers": 24, "num_heads": 16}
TOY_GRID, TOY_SHAPE = (1, 2, 4), {"dim": 32, "num_layers": 2, "num_heads": 2}
FRAMES, FUTURES = 10, 16
WAYS = {
    "decoding": "CUDA graph",
    "decoding_compiled": "CUDA graph of compiled blocks",
    "decoding_sums": "CUDA graph of compiled blocks, products as sums",
}
ALL, TOP_K = Sampling(top_k=0), Sampling(top_k=50)


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    compiled = part != "decoding"
    attention.SUMS_OF_ONE_ROW = part == "decoding_sums"
    model, prompt = make_model(toy)
    count = 2 if toy else FRAMES
    way = WAYS[part]
    one = _opened(Decoder(model, ALL), prompt, 1, True, compiled)
    began = seconds(lambda: one.next_frame())
    frames, each = _frames(one, count)
    yield _row(f"{way}, first frame {began:.1f} s", each, 1 / CAMERA_FPS, 1.0)
    yield _share_of_memory(one, each, toy)
    yield profiled(partial(one.next_frame), f"a frame, {way}")
    many = _opened(Decoder(model, ALL), prompt, FUTURES, True, compiled)
    many.next_frame()
    _, together = _frames(many, count)
    yield Row(
        f"{way}: {FUTURES} futures at once against one",
        f"{FUTURES / together:.1f} frames/s, {together * 1e3:.1f} ms for a frame of each",
        f"{each * 1e3:.1f} ms",
        2 * each / together,
        1.0,
    )
    yield profiled(partial(many.next_frame), f"a frame of {FUTURES} futures, {way}")
    del many
    best = _opened(Decoder(model, TOP_K), prompt, 1, True, compiled)
    best.next_frame()
    yield _row(f"{way}, top_k 50", _frames(best, count)[1], 1 / CAMERA_FPS, 1.0)
    eager = _opened(Decoder(model, ALL), prompt, 1, compiled, False)
    eager.next_frame()
    theirs, slow = _frames(eager, count)
    equal = float((frames == theirs).float().mean())
    rival = WAYS["decoding"] if compiled else "eager"
    yield Row(
        f"{way} against {rival} ({equal:.1%} of {frames.numel()} tokens equal)",
        f"{1 / each:.2f} frames/s",
        f"{1 / slow:.2f}",
        slow / each,
    )
    if not compiled:
        quick = DiagonalDecoder(model, ALL)
        quick.start(prompt)
        quick.next_frame()
        yield _row("diagonals, lag 2, approximate", _frames(quick, count)[1], 1 / 60, 1.0)


def make_model(toy: bool) -> tuple[GPT, Tensor]:
    """A random GPT for decoding, and a prompt of all but one frame of its context."""
    grid, shape = (TOY_GRID, TOY_SHAPE) if toy else (GRID, SHAPE)
    device = "cpu" if toy else "cuda"
    config = GPTConfig(
        **shape,
        context_steps=4 if toy else STEPS,
        positions="learned",
        qk_norm=False,
        bias=True,
        look_back=0,
        tie_embeddings=False,
    )
    with torch.device(device):
        model = GPT(config, TokenSpec(grid, VOCAB, CAMERA_FPS, 1, (128, 256), "random"), 0).eval()
    prompt = torch.randint(0, VOCAB, (1, config.context_steps - 1, *grid[1:])).to(device)
    return for_decoding(model, torch.float32 if toy else torch.bfloat16), prompt


def _opened(
    decoder: Decoder, prompt: Tensor, futures: int, fixed_shapes: bool, compiled: bool
) -> Decoder:
    decoder.fixed_shapes, decoder.compiled = fixed_shapes, compiled
    decoder.start(prompt, num_futures=futures)
    return decoder


def _frames(decoder: Any, count: int) -> tuple[Tensor, float]:
    """Frames, and seconds for one of every future."""
    frames: list[Tensor] = []
    taken = seconds(lambda: frames.extend(decoder.next_frame() for _ in range(count)))
    return torch.stack(frames), taken / count


def _row(way: str, each: float, goal_s: float, goal: float) -> Row:
    return Row(
        f"decoding, commaVQ shape, bfloat16, {way}",
        f"{1 / each:.2f} frames/s, {each * 1e3:.1f} ms a frame",
        f"{1 / goal_s:.0f} frames/s",
        goal_s / each,
        goal,
    )


def _share_of_memory(decoder: Decoder, each: float, toy: bool) -> Row:
    """Bytes that a frame must read over its time, against a plain read."""
    tokens = decoder.layout.step_length
    read = decoder.bytes_per_token * tokens / each
    limit = read_bandwidth(torch.device("cpu" if toy else "cuda"))
    return Row(
        f"share of memory speed, {tokens} passes a frame",
        f"{read / 1e12:.3g} TB/s, {each / tokens * 1e6:.0f} us a token",
        f"a plain read, {limit / 1e12:.3g} TB/s",
        read / limit,
    )
