"""Encoding and decoding with the architecture of commaVQ's tokenizer at 128 x 256.

Peer: the same weights in plain PyTorch, as upstream runs them: float32, contiguous, eager. Weights
are random, so the share of equal tokens is not that of the published network.
"""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import Row, in_rounds, ratios, seconds
from drives.clips.preprocessing import COMMA_CAMERA
from tokenizer.inference.config import InferenceConfig
from tokenizer.inference.fast import for_inference, share_changed
from tokenizer.load import Tokenizer, manifest_of
from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.vqgan import VQGAN
from tokenizer.quantizers.config import VQConfig

ROUNDS = 5
GOALS = {"float32": 2.0, "bfloat16": 3.0}


def rows() -> Iterator[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 32 if device == "cuda" else 4
    torch.manual_seed(0)
    plain = random_tokenizer().to(device)
    frames = torch.rand(batch, 3, 128, 256, device=device) * 2 - 1
    tokens = plain.encode(frames)
    gpu = device == "cuda"
    configs = {
        "float32": InferenceConfig(winograd=not gpu, frames_at_once=0 if gpu else 1, compile=gpu)
    }
    if gpu or has_bfloat16():
        configs["bfloat16"] = InferenceConfig("bfloat16", compile=gpu)
    ours = {name: for_inference(plain, config) for name, config in configs.items()}
    for work in ("encode", "decode"):
        given = frames if work == "encode" else tokens
        contestants = {"plain": measure(getattr(plain, work), given)}
        contestants |= {dtype: measure(getattr(t, work), given) for dtype, t in ours.items()}
        taken = in_rounds(contestants, ROUNDS)
        rate = {name: batch / median(times) for name, times in taken.items()}
        for dtype, tokenizer in ours.items():
            name = f"commaVQ {work}, batch {batch}, {dtype}"
            if work == "encode":
                equal = 1 - share_changed(plain, tokenizer, frames)
                name += f" ({equal:.1%} equal tokens)"
            yield Row(
                name,
                f"{rate[dtype]:.2f} frames/s",
                f"plain PyTorch, float32, {rate['plain']:.2f}",
                goal=GOALS[dtype],
                **ratios(taken["plain"], taken[dtype]),
            )


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; without, it is many times slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(there for name, there in capabilities.items() if "bf16" in name)


def random_tokenizer() -> Tokenizer:
    """commaVQ's network with random weights and a codebook of its own latents."""
    config = VQGANConfig(quantizer=VQConfig(1024, 256, code_dim=256, normalize=False))
    network = VQGAN(config).eval()
    with torch.no_grad():
        network.encoder.layers.conv_in.weight /= 127.5  # it takes 0..255
        frames = COMMA_CAMERA.to_network(torch.rand(8, 3, 128, 256) * 2 - 1)
        network.quantizer.codebook.copy_(network.latents(frames).flatten(0, 2))
    return Tokenizer(network, "random", manifest_of(config, COMMA_CAMERA))


def measure(work: Callable[[Tensor], Any], given: Tensor) -> Callable[[], float]:
    @torch.inference_mode()
    def run() -> float:
        return seconds(lambda: work(given))

    run()  # compile, pack weights, choose kernels
    return run
