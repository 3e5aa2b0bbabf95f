"""One training step of our GPT against others of the same shape, eager and compiled.

Peers: `transformers`' GPT-2, and the model of nanoGPT (github.com/karpathy/nanoGPT), which is no
package: its rows need NANOGPT=FOLDER with its `model.py`. Each is compiled as its own training
compiles it: the peers as a whole, ours block by block. All step by the same AdamW. Each peer meets
our model with the GELU that it has: tanh's approximation in GPT-2, the exact one in nanoGPT.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import Row, in_rounds, ratios, seconds
from drives.tokens.store import TokenSpec
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

LAYERS, DIM, HEADS, VOCAB = 6, 384, 6, 1024
BATCH, STEPS, GRID = 4, 4, (1, 8, 16)  # 4 frames x (1 + 128) = 516 positions
ROUNDS = 7
NANOGPT = "nanoGPT"
GOALS = {"eager": 1.2, "compiled": 1.0}
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
    tokens = torch.randint(0, VOCAB, (BATCH, STEPS, *GRID[1:]))
    for way, goal in GOALS.items():
        ours = {
            gelu: GPT(GPTConfig(**shape, **AS_GPT2, gelu=gelu), spec, 0)
            for gelu in ("tanh", "none")
        }
        peers = peers_of(ours["tanh"], ours["tanh"].layout.sequence_ids(tokens))
        if way == "compiled":
            for block in (block for model in ours.values() for block in model.blocks):
                block.compile(dynamic=False)
            for model, _ in peers.values():
                model.compile(dynamic=False)
        models: dict[str, Any] = {
            gelu: (model, lambda model=model: model.loss(tokens)) for gelu, model in ours.items()
        }
        for precision in precisions():
            steps = {name: _step(*model, precision) for name, model in (models | peers).items()}
            taken = in_rounds(steps, ROUNDS)
            rate = {name: tokens.numel() / median(times) for name, times in taken.items()}
            label = str(precision).removeprefix("torch.")
            label += "" if precision == torch.float32 else " autocast"
            positions = ours["tanh"].num_positions
            shown = f"L{LAYERS} d{DIM}, {BATCH} x {positions}, {label}, {way}"
            for name in peers:
                same = "none" if name == NANOGPT else "tanh"
                yield Row(
                    f"training step, {shown}",
                    f"{rate[same]:.0f} real tokens/s",
                    f"{name} {rate[name]:.0f}",
                    goal=goal,
                    **ratios(taken[name], taken[same]),
                )


def precisions() -> list[torch.dtype]:
    """float32, and bfloat16 where it is not emulated."""
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        print("training step, bfloat16: left out, AVX2 only emulates it", flush=True)
        return [torch.float32]
    return [torch.float32, torch.bfloat16]


def peers_of(model: GPT, ids: Tensor) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Each peer of the same shape with its loss of these ids [batch position]."""
    gpt2 = peer_of(model)
    peers: dict[str, Any] = {
        "transformers GPT2LMHeadModel": (gpt2, lambda: gpt2(ids, labels=ids).loss)
    }
    folder = os.environ.get("NANOGPT")
    if folder is None:
        print("nanoGPT: left out; NANOGPT=FOLDER names a clone of it", flush=True)
        return peers
    nano = nanogpt_of(model, Path(folder))
    given, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    peers[NANOGPT] = (nano, lambda: nano(given, targets)[1])
    return peers


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


def nanogpt_of(model: GPT, folder: Path) -> Any:
    """nanoGPT's model of the same shape; its head is always that of its embeddings."""
    spec = importlib.util.spec_from_file_location("nanogpt", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    nanogpt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nanogpt)
    config = nanogpt.GPTConfig(
        block_size=model.num_positions,
        vocab_size=model.layout.vocab_size + 1,
        n_layer=model.config.num_layers,
        n_head=model.config.num_heads,
        n_embd=model.config.dim,
        dropout=0.0,
        bias=True,
    )
    return nanogpt.GPT(config)


def _step(
    model: nn.Module, loss: Callable[[], Tensor], precision: torch.dtype
) -> Callable[[], float]:
    """Time one step of forward, backward and AdamW; the first calls are a warm-up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    model.train()

    def step() -> None:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    return lambda: seconds(step)
