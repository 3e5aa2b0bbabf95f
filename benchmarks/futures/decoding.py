"""One-token decoding at the shape of commaVQ's GPT, with the context nearly full.

Peer: commaVQ's own decoder in bfloat16, as it is published: COMMAVQ_GPT names its file,
utils/gpt.py of github.com/commaai/commavq; without it the rows stand against torch's kernels alone.
Limit: a plain read of the bytes that one token needs (weights and filled cache). Weights and caches
are random; ratios are medians of rounds that take turns, with the least and the most.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import Row, seconds
from drives.tokens.store import TokenSpec
from training.machine import read_bandwidth
from training.watch.free_threads import Reading, reading
from worldmodel.decoding import Sampling
from worldmodel.decoding.native.step import NativeStep
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

LAYERS, DIM, HEADS, VOCAB, STEPS, GRID = 24, 1024, 16, 1024, 20, (1, 8, 16)
LENGTH = (STEPS - 1) * (1 + GRID[1] * GRID[2])  # tokens that are read already
TOKENS, ROUNDS = 3, 18
# Of each precision the goals: times the peer, and share of a plain read.
GOALS = {"float32": (1.6, 0.7), "bfloat16": (2.0, 0.7), "int8": (5.0, 0.7)}
ALL_TOKENS = Sampling(top_k=0)  # as the peer draws
Times = dict[str, list[float]]  # seconds per token, round by round


def rows() -> Iterator[Row]:
    decoders, peer = make_decoders(), commavq()
    contestants = {"read": lambda: 1 / read_bandwidth(torch.device("cpu"))}
    if peer is not None:
        contestants["commaVQ"] = one_token(peer)
    for dtype, decoder in decoders.items():
        for kernel in ("native", "torch"):
            contestants[f"{dtype} {kernel}"] = one_token(decoder, kernel == "native")
    times = rounds(contestants, ROUNDS)
    where = f"a token after {LENGTH}, L{LAYERS} d{DIM}"
    for dtype, decoder in decoders.items():
        name, (goal, share) = f"{dtype} native", GOALS[dtype]
        mine = f"{median(times[name]) * 1e3:.1f} ms"
        if peer is not None:
            yield compared(f"{where}, {dtype}", mine, "commaVQ", times, name, goal)
        yield compared(f"{where}, {dtype}", mine, f"{dtype} torch", times, name)
        read = decoder.bytes_per_token
        speeds = [read / taken / 1e9 for taken in times[name]]
        best = 1 / median(times["read"]) / 1e9
        yield Row(
            f"{where}, {dtype}: share",
            f"{median(speeds):.1f} GB/s ({min(speeds):.1f} to {max(speeds):.1f})",
            f"a plain read, {best:.1f} GB/s",
            median(speeds) / best,
            share,
        )


def make_decoders(dtypes: Iterable[str] = tuple(GOALS)) -> dict[str, Decoder]:
    """A decoder of each precision, its random cache filled but for one frame."""
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    config = GPTConfig(
        dim=DIM,
        num_layers=LAYERS,
        num_heads=HEADS,
        context_steps=STEPS,
        positions="learned",
        qk_norm=False,
        bias=True,
        look_back=0,
        tie_embeddings=False,
    )
    model = GPT(config, spec, 0).eval()
    return {dtype: opened(model, dtype) for dtype in dtypes}


def opened(model: GPT, dtype: str) -> Decoder:
    """A decoder that begins its last frame; no prompt was read."""
    decoder = Decoder(for_decoding(model, dtype), ALL_TOKENS)
    decoder.tokens = torch.randint(0, VOCAB, (1, STEPS - 1, *GRID[1:]))
    decoder.actions = decoder.drop_actions = decoder.captions = None
    decoder._read_text()
    decoder._step, decoder.cache = STEPS - 1, decoder._empty_cache(1)
    shape = (2, 1, HEADS, LENGTH, DIM // HEADS)
    for layer in range(LAYERS):
        decoder.cache.write(layer, 0, *torch.randn(shape))
    decoder.cache.length = LENGTH
    return decoder


def one_token(decoder: Any, native: bool = False, tokens: int = TOKENS) -> Callable[[], float]:
    """Seconds per token; every call decodes the first tokens of the open frame again."""
    if not isinstance(decoder, Decoder):
        return lambda: theirs(decoder, tokens)
    step = NativeStep(decoder.model) if native else None

    @torch.inference_mode()
    def measure() -> float:
        decoder.native, decoder.cache.length = step, LENGTH
        decoder.begin()
        logits = decoder.feed(decoder.prefix)
        uniform = torch.rand(tokens, 1)

        def decode() -> None:
            out = logits
            for i in range(tokens):
                token = sample(out[:, -1], decoder.sampling, uniform[i])
                out = decoder.feed(decoder.embed_cells(token[:, None], slice(i, i + 1)))

        return seconds(decode) / tokens

    return measure


def commavq() -> Any | None:
    """The peer with random weights and a full cache; None where its file is not named."""
    if (file := os.environ.get("COMMAVQ_GPT")) is None:
        return None
    spec = importlib.util.spec_from_file_location("commavq_gpt", Path(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.device("meta"):
        peer = module.GPT(module.GPTConfig(n_layer=LAYERS))
    peer = peer.to(torch.bfloat16).to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in peer.parameters():
        parameter.normal_(std=0.02)
    peer.setup_caches(1, peer.config.block_size)
    for block in peer.transformer.h:
        block.attn.kv_cache.k_cache.normal_()
        block.attn.kv_cache.v_cache.normal_()
    return peer


@torch.inference_mode()
def theirs(peer: Any, tokens: int) -> float:
    start, position = torch.zeros(1, 1, dtype=torch.int), torch.tensor([LENGTH], dtype=torch.int)
    return seconds(lambda: peer.decode_n_tokens(start, position, tokens)) / tokens


def rounds(contestants: dict[str, Callable[[], float]], count: int) -> Times:
    """Every contestant in turns, `count` times; a first turn does not count.

    Of each, the half that other processes disturbed least is kept, in order of time.
    """
    found: dict[str, list[tuple[float, int, float]]] = {name: [] for name in contestants}
    for turn in range(count + 1):
        for name, measure in contestants.items():
            before = reading()
            taken = measure()
            if turn:
                found[name].append((others_between(before, reading()), turn, taken))
    calm = {name: sorted(each)[: -(-count // 2)] for name, each in found.items()}
    load = max(each[-1][0] for each in calm.values())
    print(f"in what is kept, other processes took at most {load:.2f} cores", flush=True)
    return {name: [taken for _, _, taken in each] for name, each in calm.items()}


def others_between(before: Reading | None, after: Reading | None) -> float:
    """Cores that other processes took."""
    if before is None or after is None or after.wall <= before.wall:
        return 0.0
    busy, own = after.busy - before.busy, after.own - before.own
    return max(0.0, (busy - own) / (after.wall - before.wall))


def compared(
    what: str, ours: str, rival: str, times: Times, name: str, goal: float | None = None
) -> Row:
    """Our speed over a rival's: medians, then the least and the most that rounds allow."""
    mine, other = median(times[name]), times[rival]
    least, most = min(other) / max(times[name]), max(other) / min(times[name])
    against = f"{rival} {median(other) * 1e3:.1f} ms ({least:.2f} to {most:.2f})"
    return Row(what, ours, against, median(other) / mine, goal)
