"""One training step of our GPT against `transformers`' GPT-2 of the same shape."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks import Row, interleaved, seconds
from drives.tokens.store import TokenSpec
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

LAYERS, DIM, HEADS, VOCAB = 6, 384, 6, 1024
BATCH, STEPS, GRID = 4, 4, (1, 8, 16)  # 4 frames x (1 + 128) = 516 positions
REPEATS = 6
AS_GPT2: dict[str, Any] = {
    "positions": "learned",
    "qk_norm": False,
    "bias": True,
    "look_back": 0,
    "tie_embeddings": False,
}


def rows() -> Iterator[Row]:
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    shape = {"dim": DIM, "num_layers": LAYERS, "num_heads": HEADS, "context_steps": STEPS}
    ours = GPT(GPTConfig(**shape, **AS_GPT2), spec, 0)
    peer = peer_of(ours)
    tokens = torch.randint(0, VOCAB, (BATCH, STEPS, *GRID[1:]))
    ids = ours.layout.sequence_ids(tokens)
    real = tokens.numel()
    for precision in (torch.float32, torch.bfloat16):
        if precision == torch.bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX2":
            print("training step, bfloat16: left out, AVX2 only emulates it", flush=True)
            continue
        contestants = {
            "ours": _step(ours, lambda: ours.loss(tokens), precision),
            "peer": _step(peer, lambda: peer(ids, labels=ids).loss, precision),
        }
        best = interleaved(contestants, REPEATS)
        label = str(precision).removeprefix("torch.")
        label += "" if precision == torch.float32 else " autocast"
        shape = f"L{LAYERS} d{DIM}, {BATCH} x {ours.num_positions}"
        yield Row(
            f"training step, {shape}, {label}",
            f"{real / best['ours']:.0f} real tokens/s",
            f"transformers GPT2LMHeadModel {real / best['peer']:.0f}",
            best["peer"] / best["ours"],
            goal=1.0,
        )


def peer_of(model: GPT) -> Any:
    """`transformers`' GPT-2 of the same shape, with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=model.layout.vocab_size + 1,
        n_positions=model.num_positions,
        n_embd=model.config.dim,
        n_layer=model.config.num_layers,
        n_head=model.config.num_heads,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=model.layout.vocab_size,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def _step(
    model: nn.Module, loss: Callable[[], torch.Tensor], precision: torch.dtype
) -> Callable[[], float]:
    """Time one step of forward, backward and AdamW; the first call is a warm-up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    model.train()

    def step() -> None:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return lambda: seconds(step)
