"""Compressing and decompressing at one shape, against decoding token by token in `transformers`.

All are measured where a long segment spends its time: the context is full, so some of it is read
again (of a GPT half, of other models three quarters), and as many new frames follow as left. The
peer is a GPT-2 of the same width, layers and context, which reads the same frames and continues
with `generate`. Ours codes
several segments in lockstep, and the figure is frames of all of them. Weights are random: only
speed is measured. CPU seconds, so that other processes do not count.
"""

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
import torch

from benchmarks import Row, cpu_seconds
from drives.tokens.store import TokenSpec
from worldmodel.codec.distributions.network import EXACT, NetworkPredictor
from worldmodel.codec.distributions.predictors import Told, sent
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

LAYERS, DIM, HEADS, VOCAB, STEPS, GRID = 6, 256, 4, 1024, 8, (1, 8, 16)
SEGMENTS = 32
KINDS: dict[str, DynamicsConfig] = {
    "whole frame": WholeFrameConfig(DIM, LAYERS, 0, HEADS, context_steps=STEPS),
    "whole frame, 2 inner layers": WholeFrameConfig(DIM, LAYERS, 2, HEADS, context_steps=STEPS),
    "GPT raster": GPTConfig(dim=DIM, num_layers=LAYERS, num_heads=HEADS, context_steps=STEPS),
}
FAMILY = constriction.stream.model.Categorical(perfect=False)


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    frames = np.random.default_rng(0).integers(0, VOCAB, (SEGMENTS, STEPS, *GRID[1:]), np.int32)
    for kind, config in KINDS.items():
        network = build_dynamics(config, spec, 0).eval()
        new = STEPS // (2 if isinstance(config, GPTConfig) else 4)  # as the codec's own choice
        theirs = 1 / _peer_seconds(new)
        for arithmetic in (EXACT, "float"):
            predictor = NetworkPredictor(network, arithmetic, new)
            for what, spent in _seconds_of(predictor, frames).items():
                ours = SEGMENTS * new / spent
                name = f"{what}, {kind}, {arithmetic}, L{LAYERS} d{DIM}, {SEGMENTS} segments"
                rival = f"transformers generate, {theirs:.2f}"
                yield Row(name, f"{ours:.2f} frames/s", rival, ours / theirs, goal=2.0)


def _seconds_of(predictor: NetworkPredictor, frames: np.ndarray) -> dict[str, float]:
    """CPU seconds of coding the newest frames of all segments, and of decoding them."""
    coders = [constriction.stream.queue.RangeEncoder() for _ in frames]
    if predictor.foresees:
        coded = cpu_seconds(lambda: _code_all(predictor, frames, coders))
    else:
        coded = cpu_seconds(lambda: _walk(predictor, frames, coders))
    decoders = [constriction.stream.queue.RangeDecoder(c.get_compressed()) for c in coders]
    decoded = cpu_seconds(lambda: _walk(predictor, frames, decoders))
    return {"compress": coded, "decompress": decoded}


def _code_all(predictor: NetworkPredictor, frames: np.ndarray, coders: list[Any]) -> None:
    """Code the newest frames of every segment; a pass over its window predicts them."""
    for own, coder in zip(frames, coders, strict=True):
        for step, probs in enumerate(predictor.known(own, None), 1):
            if step >= STEPS - predictor.decoder.slide_steps:
                coder.encode(own[step].reshape(-1), FAMILY, probs)


def _walk(predictor: NetworkPredictor, frames: np.ndarray, coders: list[Any]) -> None:
    """Code or decode the newest frames token by token, behind those before."""
    with predictor.arithmetic():
        kept = STEPS - predictor.decoder.slide_steps
        predictor.decoder.start(torch.from_numpy(frames[:, :kept]).long())
    for step in range(kept, STEPS):
        guesses = predictor.predict(None)
        told: Told | None = next(guesses)
        real = frames[:, step].reshape(len(frames), -1)
        while told is not None:
            probs, cells = told
            for row, coder in enumerate(coders):
                own = np.ascontiguousarray(real[row, cells])
                if hasattr(coder, "encode"):
                    coder.encode(own, FAMILY, np.ascontiguousarray(probs[row]))
                else:
                    found = coder.decode(FAMILY, np.ascontiguousarray(probs[row]))
                    assert np.array_equal(found, own)
            told = sent(guesses, real[:, cells])


def _peer_seconds(new: int) -> float:
    """CPU seconds of a new frame, its share of reading the context included."""
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    length = 1 + GRID[1] * GRID[2]
    config = GPT2Config(
        vocab_size=VOCAB + 1,
        n_positions=STEPS * length,
        n_embd=DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=VOCAB,
        eos_token_id=None,
    )
    peer = GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, VOCAB, (1, (STEPS - new) * length + 1))
    cache = DynamicCache(config=config)

    def work() -> None:
        with torch.inference_mode():
            peer(ids[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=new * length - 1,
            do_sample=True,
            top_k=0,
            pad_token_id=VOCAB,
        )

    return cpu_seconds(work) / new
