"""Prompts of 19 frames at the shape of commaVQ's GPT, in float32: reading one, and its futures.

Peer: `transformers`' GPT-2 of the same shape. Several futures read one prompt once, and hold it
once; the first rows compare a token of them with that of copies of its cache.
"""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import Row, seconds
from benchmarks.futures.decoding import (
    DIM,
    GRID,
    HEADS,
    LAYERS,
    STEPS,
    VOCAB,
    compared,
    make_decoders,
    one_token,
    rounds,
)
from worldmodel.decoding.native.build import SPLIT
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics.shared_cache import SharedCache

ROUNDS, FUTURES = 3, 8


def rows() -> Iterator[Row]:
    decoder = make_decoders(["float32"])["float32"]
    yield from tokens_of_futures(decoder)
    prompt = torch.randint(0, VOCAB, (1, STEPS - 1, *GRID[1:]))
    peer, ids = transformers_gpt2(), decoder.layout.sequence_ids(prompt)
    times = rounds(
        {
            "ours": lambda: seconds(lambda: decoder.start(prompt)),
            "transformers": lambda: seconds(lambda: read(peer, ids)),
            "several": lambda: seconds(lambda: decoder.start(prompt, num_futures=FUTURES)),
        },
        ROUNDS,
    )
    what = f"reading a prompt of {ids.shape[1]} tokens, L{LAYERS} d{DIM}, float32"
    yield compared(what, f"{median(times['ours']):.2f} s", "transformers", times, "ours", 1.5)
    several = f"{median(times['several']):.2f} s"
    yield compared(f"the same for {FUTURES} futures", several, "ours", times, "several")


def tokens_of_futures(decoder: Decoder) -> Iterator[Row]:
    """A token of each future: the prompt stands once, or once for each."""
    tokens, copies = decoder.tokens, decoder.cache.expand(FUTURES)
    caches = {"copies": copies, "once": SharedCache(decoder.cache, FUTURES, SPLIT)}

    def measure(name: str, native: bool) -> Callable[[], float]:
        def of_all() -> float:
            decoder.tokens, decoder.cache = tokens.expand(FUTURES, -1, -1, -1), caches[name]
            return one_token(decoder, native, tokens=1)()

        return of_all

    ways = {"native": True, "torch": False}
    times = rounds(
        {f"{way} {name}": measure(name, native) for way, native in ways.items() for name in caches},
        ROUNDS,
    )
    for way in ways:
        ours = f"{median(times[f'{way} once']) * 1e3:.0f} ms"
        what = f"a token of each of {FUTURES} futures, {way}"
        yield compared(what, ours, f"{way} copies", times, f"{way} once")


def transformers_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB + 1,
        n_positions=STEPS * (1 + GRID[1] * GRID[2]),
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        tie_word_embeddings=False,
    )
    return GPT2LMHeadModel(config).eval()


@torch.inference_mode()
def read(peer: Any, ids: Tensor) -> None:
    peer(ids, use_cache=True, logits_to_keep=1)
