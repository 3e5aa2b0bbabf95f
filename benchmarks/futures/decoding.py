"""One-token decoding at the shape of commaVQ's GPT, with the context nearly full.

Peer: `transformers`' GPT-2 with its own cached `generate`. Limit: the time in which this
machine reads the bytes that one token needs (weights and filled cache) once from memory.
Both start from the same 19-frame prompt; prefill is timed separately. Weights are random. The last
rows repeat the measurement while another process takes a core.
"""

import copy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks import Row, interleaved, seconds
from drives.tokens.store import TokenSpec
from training.machine import read_bandwidth
from training.watch.free_threads import FreeThreads
from worldmodel.decoding import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

LAYERS, DIM, HEADS, VOCAB, STEPS, GRID = 24, 1024, 16, 1024, 20, (1, 8, 16)
NEW_TOKENS, REPEATS = 11, 6  # 66 tokens each, in turns
DTYPES = (torch.float32, torch.bfloat16, torch.int8)
ALL_TOKENS = Sampling(top_k=0)  # as the peer draws


def rows() -> Iterator[Row]:
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
    prompt = torch.randint(0, VOCAB, (1, STEPS - 1, *GRID[1:]))
    peers, read_peer = _peers(model.layout.sequence_ids(prompt))
    ours = {dtype: Decoder(for_decoding(model, dtype), ALL_TOKENS) for dtype in DTYPES}
    del model
    read_ours = seconds(lambda: ours[torch.float32].start(prompt))
    for dtype in DTYPES[1:]:
        _copy_prompt(ours[torch.float32], ours[dtype])
    contestants = {"peer": peers[torch.float32]}
    contestants |= {str(dtype): _measure(decoder) for dtype, decoder in ours.items()}
    contestants["read"] = lambda: 1 / read_bandwidth(torch.device("cpu"))
    best = interleaved(contestants, REPEATS)
    bandwidth = 1 / best["read"]
    length = prompt.numel() + prompt.shape[1]
    where = f"decoding after {length} tokens, L{LAYERS} d{DIM}"
    rival = f"transformers generate, float32, {1 / best['peer']:.2f}"
    for dtype, decoder in ours.items():
        taken, read = best[str(dtype)], decoder.bytes_per_token
        held = "weights and cache" if dtype == torch.int8 else "weights"
        name = f"{where}, {str(dtype).removeprefix('torch.')} {held}"
        yield Row(name, f"{1 / taken:.2f} tokens/s", rival, best["peer"] / taken, goal=4.0)
        limit = f"a plain read, {bandwidth / 1e9:.1f} GB/s"
        share = read / taken / bandwidth
        yield Row(f"{name}: share of memory", f"{read / taken / 1e9:.1f} GB/s", limit, share)
    taken, theirs = best[str(torch.bfloat16)], peers[torch.bfloat16]()
    rival = f"transformers generate, bfloat16, {1 / theirs:.2f}"
    yield Row(f"{where}, bfloat16 weights", f"{1 / taken:.2f} tokens/s", rival, theirs / taken, 4.0)
    yield Row(
        f"reading a prompt of {length} tokens, float32",
        f"{read_ours:.1f} s",
        f"transformers {read_peer:.1f} s",
        read_peer / read_ours,
    )
    yield from on_a_busy_machine(ours, best, peers)


def on_a_busy_machine(
    ours: dict[torch.dtype, Decoder],
    free: dict[str, float],
    peers: dict[torch.dtype, Callable[[], float]],
) -> Iterator[Row]:
    """What is left of the speed while another process takes a core.

    Args:
        free: seconds per token of every precision with nothing else running.
    """
    threads = torch.get_num_threads()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        theirs = peers[torch.float32]()
        for dtype, decoder in ours.items():
            all_threads = _measure(decoder)()
            decoder.threads, measure = FreeThreads(), _measure(decoder)
            measure()  # it notices the load
            taken = min(measure() for _ in range(3))
            decoder.threads = None
            torch.set_num_threads(threads)
            own = free[str(dtype)]
            yield Row(
                f"decoding, {str(dtype).removeprefix('torch.')}, a core taken, threads=free",
                f"{1 / taken:.2f} tokens/s (threads=all {1 / all_threads:.2f})",
                f"nothing else running {1 / own:.2f}; transformers now {1 / theirs:.2f}",
                own / taken,
                0.4,
            )
    finally:
        other.kill()
        other.wait()


def _copy_prompt(read: Decoder, other: Decoder) -> None:
    """Copy the prompt's cache into a decoder of another precision, to prefill only once."""
    own = ("model", "blocks", "cache")
    vars(other).update({name: value for name, value in vars(read).items() if name not in own})
    length = read.cache.length
    other.cache = other._empty_cache(1)
    for layer, parts in enumerate(zip(read.cache.keys, read.cache.values, strict=True)):
        other.cache.write(layer, 0, *(part[:, :, :length] for part in parts))
    other.cache.length = length


def _measure(decoder: Decoder) -> Callable[[], float]:
    """Seconds per token; every call decodes the first tokens of frame 20 again."""
    start = decoder.cache.length

    @torch.inference_mode()
    def measure() -> float:
        decoder.cache.length = start
        decoder.begin()
        logits = decoder.feed(decoder.prefix)
        uniform = torch.rand(NEW_TOKENS, 1)

        def decode() -> None:
            out = logits
            for i in range(NEW_TOKENS):
                token = sample(out[:, -1], decoder.sampling, uniform[i])
                out = decoder.feed(decoder.embed_cells(token[:, None], slice(i, i + 1)))

        return seconds(decode) / NEW_TOKENS

    return measure


def _peers(ids: Tensor) -> tuple[dict[torch.dtype, Callable[[], float]], float]:
    """For each precision, seconds per token of `generate` with the prompt in its cache.

    The bfloat16 cache is the rounded float32 cache, which saves a second prefill.
    """
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB + 1,
        n_positions=STEPS * (1 + GRID[1] * GRID[2]),
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        tie_word_embeddings=False,
        bos_token_id=VOCAB,
        eos_token_id=None,
    )
    peer = GPT2LMHeadModel(config).eval()
    cache, low_cache = DynamicCache(config=config), DynamicCache(config=config)
    read = seconds(lambda: _prefill(peer, ids, cache))
    layers: list[Any] = cache.layers
    for index, layer in enumerate(layers):
        low_cache.update(layer.keys.bfloat16(), layer.values.bfloat16(), index)
    low = copy.deepcopy(peer).bfloat16()
    ids = torch.cat([ids, torch.full((1, 1), VOCAB)], dim=1)
    return {
        torch.float32: lambda: _generate(peer, ids, cache),
        torch.bfloat16: lambda: _generate(low, ids, low_cache),
    }, read


@torch.inference_mode()
def _prefill(peer: Any, ids: Tensor, cache: Any) -> None:
    peer(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _generate(peer: Any, ids: Tensor, cache: Any) -> float:
    """Seconds per token; the cache holds all of `ids` but the last, before and after the call."""
    clock = _Clock()
    peer.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=NEW_TOKENS + 1,
        do_sample=True,
        top_k=0,
        pad_token_id=VOCAB,
        streamer=clock,
    )
    cache.crop(ids.shape[1] - 1 - cache.get_seq_length())
    # The first time stamp is the prompt, the second the first token: set-up, not counted.
    return (clock.stamps[-1] - clock.stamps[1]) / (len(clock.stamps) - 2)


class _Clock:
    """A `generate` streamer that records the arrival time of every token."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def put(self, _: Tensor) -> None:
        self.stamps.append(time.perf_counter())

    def end(self) -> None:
        pass
