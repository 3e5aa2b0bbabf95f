"""One-token decoding at the shape of commaVQ's GPT, with the context nearly full.

Peer: `transformers`' GPT-2 with its own cached `generate`. Limit: the time in which this
machine reads the bytes that one token needs (weights and filled cache) once from memory.
Both start from the same 19-frame prompt; reading the prompt is timed apart. Weights are random.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import training  # noqa: F401  (first: it repairs torchvision, which transformers imports)
from benchmarks import Row, interleaved, seconds
from tokenizer.token_store import TokenSpec
from worldmodel.decoding import Decoder, Sampling, for_decoding, sample
from worldmodel.gpt import GPT, GPTConfig

LAYERS, DIM, HEADS, VOCAB, STEPS, GRID = 24, 1024, 16, 1024, 20, (1, 8, 16)
NEW_TOKENS, REPEATS = 8, 4  # 32 tokens each, in turns


def rows() -> Iterator[Row]:
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    config = GPTConfig(DIM, LAYERS, HEADS, 4, STEPS, "learned", qk_norm=False, bias=True)
    model = GPT(config, spec, 0).eval()
    prompt = torch.randint(0, VOCAB, (1, STEPS - 1, *GRID[1:]))
    bandwidth = read_bandwidth()
    peer, read_peer = _peer(model.layout.sequence_ids(prompt))
    ours: dict[torch.dtype, Decoder] = {}
    start = time.perf_counter()
    for dtype in (torch.float32, torch.bfloat16):
        ours[dtype] = Decoder(for_decoding(model, dtype), Sampling())
        if torch.float32 in ours and dtype != torch.float32:
            ours[dtype].tokens, ours[dtype].cache = prompt, ours[torch.float32].cache.expand(1)
            continue
        ours[dtype].start(prompt)
        read_ours = time.perf_counter() - start
    del model
    contestants: dict[str, Callable[[], float]] = {"peer": peer}
    contestants |= {str(dtype): _ours(decoder) for dtype, decoder in ours.items()}
    best = interleaved(contestants, REPEATS)
    where = f"decoding, L{LAYERS} d{DIM}, {ours[torch.float32].cache.length} positions"
    for dtype, decoder in ours.items():
        label, taken = str(dtype).removeprefix("torch."), best[str(dtype)]
        yield Row(
            f"{where}, {label} weights",
            f"{1 / taken:.1f} tokens/s",
            f"transformers generate, float32, {1 / best['peer']:.1f}",
            best["peer"] / taken,
            goal=4.0,
        )
        limit = bytes_per_token(decoder) / bandwidth
        yield Row(
            f"{where}, {label} weights: share of memory bandwidth",
            f"{bytes_per_token(decoder) / taken / 1e9:.1f} GB/s",
            f"a plain read of {bandwidth / 1e9:.1f} GB/s",
            limit / taken,
        )
    length = prompt.numel() + prompt.shape[1]
    yield Row(
        f"reading the prompt of {length} tokens, float32",
        f"{read_ours:.1f} s",
        f"transformers, first token included, {read_peer:.1f} s",
        read_peer / read_ours,
    )


def _ours(decoder: Decoder) -> Callable[[], float]:
    """Seconds per token; every call decodes the first tokens of frame 20 anew."""
    start = decoder.cache.length

    @torch.inference_mode()
    def measure() -> float:
        decoder.cache.length = start
        logits = decoder.feed(decoder._prefix()[0])
        uniform = torch.rand(NEW_TOKENS, 1)

        def decode() -> None:
            out = logits
            for i in range(NEW_TOKENS):
                token = sample(out, decoder.sampling, uniform[i])
                out = decoder.feed(decoder.model.embed(token[:, None]))

        return seconds(decode) / NEW_TOKENS

    return measure


def _peer(ids: Tensor) -> tuple[Callable[[], float], float]:
    """Seconds per token of `generate` on a prompt that is already in its cache."""
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
    peer: Any = GPT2LMHeadModel(config).eval()
    cache = DynamicCache(config=config)
    ids = torch.cat([ids, torch.full((1, 1), VOCAB)], dim=1)
    with torch.inference_mode():
        start = time.perf_counter()
        peer(ids[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        read = time.perf_counter() - start

    @torch.inference_mode()
    def measure() -> float:
        clock = _Clock()
        cache.crop(ids.shape[1] - 1)
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
        # The first stamp is the prompt, the second the first token: set-up, not counted.
        return (clock.stamps[-1] - clock.stamps[1]) / (len(clock.stamps) - 2)

    return measure, read


class _Clock:
    """A `generate` streamer that notes when every token arrives."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def put(self, _: Tensor) -> None:
        self.stamps.append(time.perf_counter())

    def end(self) -> None:
        pass


def bytes_per_token(decoder: Decoder) -> int:
    """Bytes of blocks, head and filled cache; the embedding tables give one row each."""
    parts = [decoder.model.blocks, decoder.model.head]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    return weights + decoder.cache.num_bytes


def read_bandwidth() -> float:
    """Bytes per second of summing an array far larger than the caches; best of several."""
    array = torch.ones(100_000_000)
    return array.numel() * 4 / min(seconds(array.sum) for _ in range(10))
