"""Frames per second of encoding and decoding at 128 x 256: commaVQ's tokenizer and ours.

Peer: the same weights in float32, contiguous, eager, as commaVQ runs them. `tokenizer_base` has its
recipe's shape. Weights are random, so the share of equal tokens is not that of trained ones.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import Row, interleaved, seconds
from benchmarks.tokens.tokenizer_speed import measure, random_tokenizer
from tokenizer.inference.config import InferenceConfig
from tokenizer.inference.fast import for_inference, share_changed
from tokenizer.load import Tokenizer, manifest_of
from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.config import AutoencoderConfig
from tokenizer.quantizers.config import FSQConfig

BATCH, REPEATS = 64, 3
WAYS = {
    "bfloat16": InferenceConfig("bfloat16"),
    "bfloat16 compiled": InferenceConfig("bfloat16", compile=True),
}


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    device, batch = ("cpu", 1) if toy else ("cuda", BATCH)
    kinds = {"tokenizer_base": base_tokenizer(toy)}
    if not toy:
        kinds = {"commaVQ": random_tokenizer()} | kinds
    for name, plain in kinds.items():
        yield from _rows(name, plain.to(device), batch)


def _rows(name: str, plain: Tokenizer, batch: int) -> Iterator[Row]:
    height, width = plain.network.config.image_size
    device = next(plain.network.parameters()).device
    frames = torch.rand(batch, 3, height, width, device=device) * 2 - 1
    tokens = plain.encode(frames)
    for way, config in WAYS.items():
        fast = for_inference(plain, config)
        for work, given in (("encode", frames), ("decode", tokens)):
            began = seconds(partial(measure, getattr(fast, work), given))
            contestants = {
                "plain": measure(getattr(plain, work), given),
                "fast": measure(getattr(fast, work), given),
            }
            best = interleaved(contestants, REPEATS)
            title = f"{name} {work}, batch {batch}, {way}, first {began:.0f} s"
            if work == "encode":
                title += f" ({1 - share_changed(plain, fast, frames):.1%} equal tokens)"
            yield Row(
                title,
                f"{batch / best['fast']:,.0f} frames/s",
                f"float32, eager, {batch / best['plain']:,.0f}",
                best["plain"] / best["fast"],
                2.0,
            )


def base_tokenizer(toy: bool) -> Tokenizer:
    """The shape of the recipe tokenizer_base, with random weights."""
    config = AutoencoderConfig(
        image_size=(32, 64) if toy else (128, 256),
        quantizer=FSQConfig((8, 8, 8, 6, 5)),
        patch=1,
        channels=(8, 16) if toy else (128, 128, 256, 256, 512),
        num_res_blocks=2,
    )
    return Tokenizer(Autoencoder(config).eval(), "random", manifest_of(config))
