"""Width transfer: with it, steps of one size move a wide network as much as a narrow one."""

import math
from dataclasses import replace

import pytest
import torch

from tokenizer.token_store import TokenSpec
from training.errors import BadInput
from training.optimizers import AdamWConfig, build_optimizer
from worldmodel.dynamics.gpt import GPT, GPTConfig
from worldmodel.dynamics.layout import LayoutConfig
from worldmodel.dynamics.mup import is_hidden

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
BASE = 32


def make_model(dim: int, base: int = BASE, **settings) -> GPT:
    config = GPTConfig(
        dim=dim,
        num_layers=2,
        num_heads=dim // 16,
        context_steps=4,
        mup_base_width=base,
        layout=LayoutConfig("continuous"),
    )
    torch.manual_seed(0)
    return GPT(replace(config, **settings), SPEC, num_actions=2)


def movement(dim: int, base: int, steps: int = 4, **settings) -> dict[str, float]:
    """Root mean square change of what flows through the network after a few steps."""
    model = make_model(dim, base, **settings)
    torch.manual_seed(1)
    tokens, actions = torch.randint(0, 11, (8, 4, 2, 3)), torch.randn(8, 4, 2)
    seen: dict[str, torch.Tensor] = {}
    for name in ("blocks.0", "blocks.1"):
        part = model.get_submodule(name)
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))

    def look() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            seen["logits"] = model(tokens, actions)
        return dict(seen)

    before = look()
    config = AdamWConfig(lr=3e-3, schedule="constant", warmup_steps=0)
    optimizer, _ = build_optimizer(model, config, max_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(tokens, actions).backward()
        optimizer.step()
    after = look()
    return {name: (after[name] - before[name]).square().mean().sqrt().item() for name in before}


@pytest.mark.parametrize("tied", [True, False])
def test_a_few_steps_move_every_width_alike(tied: bool) -> None:
    """The coordinate check of Yang et al. 2022, section D.1."""
    narrow, wide = (movement(dim, BASE, tie_embeddings=tied) for dim in (BASE, 8 * BASE))
    for name in narrow:
        assert 0.5 < wide[name] / narrow[name] < 2, (name, narrow[name], wide[name])


def test_without_transfer_a_wide_network_moves_more() -> None:
    narrow, wide = (movement(dim, 0, tie_embeddings=True) for dim in (BASE, 8 * BASE))
    assert wide["blocks.0"] / narrow["blocks.0"] > 10


def test_nothing_changes_at_the_base_width() -> None:
    plain, base = make_model(BASE, 0), make_model(BASE)
    for (name, a), b in zip(plain.named_parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert set(base.lr_multipliers().values()) == {1.0}
    optimizer, _ = build_optimizer(base, AdamWConfig(), max_steps=10)
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("tied", [True, False])
def test_rates_starts_and_logits_follow_the_table(tied: bool) -> None:
    model = make_model(4 * BASE, tie_embeddings=tied, positions="learned", bias=True)
    plain = make_model(4 * BASE, 0, tie_embeddings=tied, positions="learned", bias=True)
    optimizer, _ = build_optimizer(model, AdamWConfig(lr=1.0, warmup_steps=0), max_steps=10)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    hidden = set()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        group = groups[id(p)]
        if group["lr"] == 0.25:
            hidden.add(name)
            assert group["weight_decay"] == pytest.approx(0.4)
            starts_shrunk = name.startswith("look_back")
            expected = q.std().item() * (1 if starts_shrunk else 0.5)
            assert p.std().item() == pytest.approx(expected, rel=1e-3), name
        else:
            assert group["lr"] == 1.0
            assert group["weight_decay"] in (0.0, 0.1)
            assert torch.equal(p, q), name
    parts = ("attention.qkv", "attention.proj", "up", "down")
    expected = {f"blocks.{i}.{part}.weight" for i in range(2) for part in parts}
    assert hidden == expected | {"look_back.weight", "action.2.weight"}
    assert hidden == {n for n, p in model.named_parameters() if is_hidden(n, p)}
    assert optimizer.param_groups[0]["lr"] == 1.0  # the one that is logged
    x = torch.randn(1, 5, 4 * BASE)
    torch.testing.assert_close(model.logits(x), plain.logits(x) / 4)


def test_the_initial_loss_is_that_of_a_uniform_guess_at_every_width() -> None:
    torch.manual_seed(1)
    tokens, actions = torch.randint(0, 11, (8, 4, 2, 3)), torch.randn(8, 4, 2)
    for dim in (BASE, 8 * BASE):
        loss = make_model(dim, tie_embeddings=True).loss(tokens, actions).item()
        assert loss == pytest.approx(math.log(11), rel=0.02)


def test_a_negative_base_is_refused() -> None:
    with pytest.raises(BadInput, match="mup_base_width=-1"):
        GPTConfig(mup_base_width=-1)
