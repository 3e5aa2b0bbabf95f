"""Compressing and decompressing at one shape, against decoding token by token in `transformers`.

The peer is `generate` of a GPT-2 of the same width, layers and context, one frame of 128 tokens at
a time. Ours codes several segments in lockstep, and the figure is frames of all of them. Weights
are random: only speed is measured. CPU seconds, so that other processes do not count.
"""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks import Row, cpu_seconds
from drives.tokens.store import TokenSpec
from worldmodel.codec.coder import decode, encode
from worldmodel.codec.network import EXACT, NetworkPredictor
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

LAYERS, DIM, HEADS, VOCAB, STEPS, GRID = 6, 256, 4, 1024, 8, (1, 8, 16)
SEGMENTS, FRAMES = 8, 3
KINDS: dict[str, DynamicsConfig] = {
    "GPT raster": GPTConfig(dim=DIM, num_layers=LAYERS, num_heads=HEADS, context_steps=STEPS),
    "whole frame": WholeFrameConfig(DIM, LAYERS, 0, HEADS, context_steps=STEPS),
    "whole frame, 2 inner layers": WholeFrameConfig(DIM, LAYERS, 2, HEADS, context_steps=STEPS),
}


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    frames = np.random.default_rng(0).integers(0, VOCAB, (SEGMENTS, FRAMES, *GRID[1:]))
    theirs = 1 / _peer_seconds()
    for kind, config in KINDS.items():
        network = build_dynamics(config, spec, 0).eval()
        for arithmetic in (EXACT, "float"):
            predictor = NetworkPredictor(network, arithmetic)
            for what, spent in _seconds_of(predictor, list(frames)).items():
                ours = SEGMENTS * (FRAMES - 1) / spent
                name = f"{what}, {kind}, {arithmetic}, L{LAYERS} d{DIM}, {SEGMENTS} segments"
                rival = f"transformers generate, {theirs:.2f}"
                yield Row(name, f"{ours:.2f} frames/s", rival, ours / theirs, goal=2.0)


def _seconds_of(predictor: NetworkPredictor, frames: list[np.ndarray]) -> dict[str, float]:
    """CPU seconds of coding the frames, and of decoding them."""
    codes: list[bytes] = []
    lengths = [len(own) for own in frames]
    coded = cpu_seconds(lambda: codes.extend(encode(predictor, frames, None)[0]))
    decoded = cpu_seconds(lambda: decode(predictor, codes, lengths, GRID[1:], None))
    return {"compress": coded, "decompress": decoded}


def _peer_seconds() -> float:
    """CPU seconds of a frame, with the other frames of the context in the cache."""
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
    ids = torch.randint(0, VOCAB, (1, (STEPS - 1) * length + 1))
    cache = DynamicCache(config=config)
    with torch.inference_mode():
        peer(ids[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cpu_seconds(
        lambda: peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=length - 1,
            do_sample=True,
            top_k=0,
            pad_token_id=VOCAB,
        )
    )
