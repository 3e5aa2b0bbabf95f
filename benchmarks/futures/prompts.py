"""Reading a prompt of 19 frames at the shape of commaVQ's GPT, in float32.

Peer: `transformers`' GPT-2 of the same shape. Several futures read one prompt once.
"""

from collections.abc import Iterator
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
    rounds,
)

ROUNDS, FUTURES = 3, 8


def rows() -> Iterator[Row]:
    decoder = make_decoders(["float32"])["float32"]
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
