"""A GPT of two layers whose every logit depends on everything, and clips for it."""

import torch

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
POSITIONS = ["rope", "learned"]


def make_model(
    layout: str = "continuous",
    positions: str = "rope",
    context: int = 4,
    look_back: int = 3,
    dim: int = 24,
) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        dim=dim,
        num_layers=2,
        num_heads=2,
        context_steps=context,
        positions=positions,
        bias=True,
        look_back=look_back,
        layout=LayoutConfig(actions=layout, num_bins=8),
        tie_embeddings=False,
    )
    model = GPT(config, SPEC, num_actions=2).eval()
    for name, parameter in model.named_parameters():  # far from the start: no two logits alike
        std = 1.0 if name.startswith(("embed", "position", "action")) else 0.5
        parameter.data += std * torch.randn_like(parameter) * (parameter.ndim > 1)
        if name.endswith(("query_norm.weight", "key_norm.weight")):
            parameter.data *= 3  # sharp attention: what is generated depends on the context
    return model


def make_clip(time: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, SPEC.vocab_size, (batch, time, 2, 3), generator=generator)
    return tokens, 3 * torch.randn(batch, time + 20, 2, generator=generator)
