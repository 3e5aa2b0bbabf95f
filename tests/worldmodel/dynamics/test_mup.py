"""Width transfer: with it, steps of one size move a wide network as much as a narrow one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from drives.tokens.store import TokenSpec
from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.action_head import ActionHead
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.mup import Multiple, multiples

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
        tie_embeddings=False,
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
    assert hidden == {n for n, m in multiples(model).items() if m.rate != 1}
    assert optimizer.param_groups[0]["lr"] == 1.0  # the one that is logged
    x = torch.randn(1, 5, 4 * BASE)
    torch.testing.assert_close(model.logits(x), plain.logits(x) / 4)


GPTS = {
    "actions": {"layout": LayoutConfig("continuous"), "positions": "learned", "bias": True},
    "bins": {
        "layout": LayoutConfig("binned", num_bins=8, predict_actions=0.1),
        "positions": "factored",
        "noise_levels": 4,
        "tie_embeddings": True,
    },
    "captions": {"layout": LayoutConfig("none", text_tokens=2, text_width=5)},
    "heard_captions": {"context_dim": 7, "cross_every": 2, "num_kv_heads": 1, "bias": True},
    "llama": {"norm": "rms", "mlp": "swiglu", "num_kv_heads": 1, "mlp_hidden": 80},
    "more_heads": {"head_channels": 24, "qk_norm": True},
    "factors": {"factors": (3, 4), "look_back": 0, "tie_embeddings": False},
}
MASKED = {
    "actions": {"layout": LayoutConfig("continuous"), "look_back": 3, "qkv_bias": True},
    "bins": {"layout": LayoutConfig("binned", num_bins=8), "factors": (3, 4), "qk_norm": True},
    "captions": {"layout": LayoutConfig("none", text_tokens=2, text_width=5)},
}


def config_of(kind: str, name: str, dim: int) -> GPTConfig | MaskedConfig:
    shape = {"dim": dim, "num_heads": dim // 16, "num_layers": 2, "context_steps": 4}
    if kind == "masked":
        settings = {"look_back": 0, **MASKED[name]}
        return MaskedConfig(**shape, **settings, num_prompt_frames=2, mup_base_width=BASE)
    settings = {"layout": LayoutConfig("none"), "tie_embeddings": False, **GPTS[name]}
    for width in ("num_kv_heads", "mlp_hidden"):
        if width in settings:
            settings[width] *= dim // BASE
    return GPTConfig(**shape, **settings, mup_base_width=BASE)


def sides(network: nn.Module) -> dict[str, tuple[int, int]]:
    """What every parameter reads and writes; an embedding or a vector that is added reads 1."""
    found = {}
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            read = 1
            if isinstance(module, nn.Linear | nn.Conv2d) and parameter.ndim > 1:
                read = parameter[0].numel()
            elif isinstance(module, ActionHead):
                read = parameter.shape[-1]
            found[name] = (read, parameter.numel() // read)
    return found


@pytest.mark.parametrize(
    ("kind", "name"), [*(("gpt", n) for n in GPTS), *(("masked", n) for n in MASKED)]
)
def test_what_every_parameter_is_multiplied_by_follows_from_its_shapes_at_two_widths(
    kind: str, name: str
) -> None:
    spec = TokenSpec((1, 2, 3), 12, 10.0, 1, (16, 24), "test")
    with torch.device("meta"):
        base, real = (
            build_dynamics(config_of(kind, name, dim), spec, 2) for dim in (BASE, 4 * BASE)
        )
    assert set(multiples(base).values()) == {Multiple(1.0, 1.0)}
    narrow, wide, given = sides(base), sides(real), multiples(real)
    rates = real.lr_multipliers()
    assert given.keys() >= wide.keys()
    for parameter, (reads, writes) in wide.items():
        growth = (reads / narrow[parameter][0], writes / narrow[parameter][1])
        assert growth in {(1, 1), (1, 4), (4, 1), (4, 4)}, parameter
        expected = Multiple(0.5, 0.25) if growth == (4, 4) else Multiple(1.0, 1.0)
        if "head.conditions" in parameter:  # joins what the head reads behind the output's r
            expected = Multiple(0.25, 0.25)
        assert given[parameter] == expected, parameter
        assert rates[parameter] == expected.rate


def test_keys_and_values_of_captions_are_no_hidden_matrix() -> None:
    """The fan-in is the text encoder's width, which does not grow."""
    model = make_model(4 * BASE, context_dim=64)
    plain = make_model(4 * BASE, 0, context_dim=64)
    name = "blocks.0.cross_attention.context_kv.weight"
    assert torch.equal(model.get_parameter(name), plain.get_parameter(name))
    assert model.lr_multipliers()[name] == 1
    assert model.lr_multipliers()[name.replace("context_kv", "query")] == 0.25


def test_the_initial_loss_is_that_of_a_uniform_guess_at_every_width() -> None:
    torch.manual_seed(1)
    tokens, actions = torch.randint(0, 11, (8, 4, 2, 3)), torch.randn(8, 4, 2)
    for dim in (BASE, 8 * BASE):
        loss = make_model(dim, tie_embeddings=True).loss(tokens, actions).item()
        assert loss == pytest.approx(math.log(11), rel=0.02)


def test_a_negative_base_is_refused() -> None:
    with pytest.raises(BadInput, match="mup_base_width=-1"):
        GPTConfig(mup_base_width=-1, tie_embeddings=False)
