"""The masked kind: what depends on what, its scores, its counts, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked

SPEC = TokenSpec((1, 2, 3), 12, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
CONFIG = MaskedConfig(
    dim=24,
    num_layers=2,
    num_heads=2,
    context_steps=4,
    num_prompt_frames=2,
    factors=(3, 4),
    look_back=0,
)


def make_model(layout: str = "continuous", **settings) -> Masked:
    """A network whose zeros are not: else nothing would see the mask or the positions."""
    torch.manual_seed(0)
    config = replace(CONFIG, layout=LayoutConfig(layout, num_bins=8), **settings)
    model = build_dynamics(config, SPEC, 2).eval()
    with torch.no_grad():
        for parameter in model.parameters(recurse=False):
            parameter.normal_()
    return model


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 12, (2, time, 2, 3)), torch.randn(2, time, 2)


@pytest.mark.parametrize("look_back", [0, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_score_depends_on_earlier_frames_alone_and_equals_one_frame_masked(layout, look_back):
    model = make_model(layout, look_back=look_back)
    tokens, actions = make_clip()
    scores = model.score(tokens, actions)
    assert scores.nats.shape == scores.correct.shape == (2, 4, 6)
    for time in range(4):
        hidden = torch.zeros(2, time + 1, 6, dtype=torch.bool)
        hidden[:, time] = True
        real = model.factors.split(tokens[:, : time + 1].flatten(2))
        logits = model(real, hidden, actions)[:, -1]
        nats = model.factors.token_nll(logits, real[:, -1])
        torch.testing.assert_close(scores.nats[:, time], nats)
        correct = (model.factors.best(logits) == real[:, -1]).all(-1)
        assert torch.equal(scores.correct[:, time], correct)


@pytest.mark.parametrize("look_back", [0, 3])
def test_what_is_masked_is_not_seen_and_what_is_not_masked_is(look_back):
    model = make_model("none", look_back=look_back)
    tokens, _ = make_clip()
    real = model.factors.split(tokens.flatten(2))
    masked = torch.zeros(2, 4, 6, dtype=torch.bool)
    masked[:, 1, 2] = True
    logits = model(real, masked)
    changed = real.clone()
    changed[:, 1, 2] = (changed[:, 1, 2] + 1) % 3
    assert torch.equal(model(changed, masked), logits)
    difference = (model(changed, masked & False) - model(real, masked & False)).abs().amax((0, 3))
    assert difference[0].max() == 0
    assert difference[1:].min() > 0


@pytest.mark.parametrize("layout", ["continuous", "binned"])
def test_an_action_changes_the_frame_it_explains_and_later_ones(layout):
    model = make_model(layout)
    tokens, actions = make_clip()
    changed = actions.clone()
    changed[:, 1] += 5
    nats, other = model.score(tokens, actions).nats, model.score(tokens, changed).nats
    assert (nats - other).abs().amax((0, 2))[:2].max() == 0
    assert (nats - other).abs().amax((0, 2))[2:].min() > 0


@pytest.mark.parametrize("layout", ["continuous", "binned"])
def test_dropped_actions_are_not_read(layout):
    model = make_model(layout)
    tokens, actions = make_clip()
    drop = torch.tensor([True, False])
    nats = model.score(tokens, actions, drop).nats
    other = model.score(tokens, actions + 3, drop).nats
    assert torch.equal(nats[0], other[0])
    assert not torch.equal(nats[1], other[1])
    assert not torch.equal(nats[0], model.score(tokens, actions).nats[0])


def test_the_loss_is_that_of_the_masked_tokens(monkeypatch):
    model = make_model(max_corrupt_rate=0.0)
    tokens, actions = make_clip()
    masked = torch.zeros(2, 4, 6, dtype=torch.bool)
    masked[:, 3] = True

    def only_the_last(factors, *_):
        return factors, masked

    monkeypatch.setattr("worldmodel.dynamics.masked.model.corrupt", only_the_last)
    expected = model.score(tokens, actions).nats[:, 3].mean()
    torch.testing.assert_close(model.loss(tokens, actions), expected)


@pytest.mark.parametrize(
    "setting",
    [
        {"qkv_bias": True},
        {"proj_bias": False},
        {"mlp_bias": False},
        {"qk_norm": True},
        {"mlp_ratio": 2.0},
        {"look_back": 3},
        {"factors": (4, 3)},
        {"factors": ()},
        {"factors": (2, 2, 3)},
        {"mup_base_width": 12},
    ],
    ids=str,
)
def test_every_setting_makes_another_model(setting):
    tokens, actions = make_clip()
    model, other = make_model(), make_model(**setting)
    shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (model, other)]
    assert shapes[0] != shapes[1] or "mup_base_width" in setting
    assert not torch.equal(model.score(tokens, actions).nats, other.score(tokens, actions).nats)
    config = other.config
    assert from_description(describe(config)) == config


def test_dropout_is_at_work_in_training_only():
    model = make_model(dropout=0.5)
    tokens, actions = make_clip()
    assert torch.equal(model.score(tokens, actions).nats, model.score(tokens, actions).nats)
    model.train()
    assert not torch.equal(model.score(tokens, actions).nats, model.score(tokens, actions).nats)


def test_width_transfer_scales_attention_logits_head_and_rates():
    model = make_model(mup_base_width=12)
    plain = make_model()
    assert model.config.attention_scale == 8 / 12
    torch.testing.assert_close(model.head.weight, plain.head.weight * 2**0.5)
    x = torch.randn(1, 1, 6, 24)
    torch.testing.assert_close(
        model.logits(x) - model.head.bias, (plain.logits(x) - plain.head.bias) * 2**-0.5
    )
    rates = model.lr_multipliers()
    assert rates["blocks.0.space.qkv.weight"] == rates["action.2.weight"] == 0.5
    assert rates["head.weight"] == rates["position"] == rates["embeds.0.weight"] == 1


def test_the_start_is_the_published_one():
    torch.manual_seed(0)
    model = build_dynamics(replace(CONFIG, dim=192, layout=LayoutConfig("continuous")), SPEC, 2)
    zeros = {name for name, p in model.named_parameters() if p.abs().max() == 0}
    assert zeros == {"mask_token", "position", "no_action"} | {
        name for name, _ in model.named_parameters() if name.endswith("norm.bias")
    }
    assert model.embeds[0].weight.std().item() == pytest.approx(1, rel=0.1)
    assert model.head.weight.abs().max().item() == pytest.approx(192**-0.5, rel=0.02)


def test_flops_count_every_product():
    """A product of [m k] and [k n] is 2 m k n; backward costs twice the forward pass."""
    model = make_model("none")
    tokens, _ = make_clip()
    real = model.factors.split(tokens.flatten(2))
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know a CPU's fused kernel
    with plain, FlopCounterMode(display=False) as counter:
        model(real, torch.ones(2, 4, 6, dtype=torch.bool))
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    norms = sum(p.numel() for name, p in model.named_parameters() if name.endswith("norm.weight"))
    expected = model.flops(2, 4) - 6 * 48 * (biases + norms)
    assert 3 * counter.get_total_flops() == pytest.approx(expected)
    causal = 12 * 2 * 24 * 48 * 4 / 2
    assert model.flops(2, 4, causal=True) == pytest.approx(model.flops(2, 4) - causal)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_without_embeddings_leave_out_what_is_looked_up(layout):
    model = make_model(layout)
    looked_up = ("embeds", "position", "mask_token", "bins", "no_action")
    expected = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(looked_up))
    assert model.num_parameters(embeddings=False) == expected
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())


def test_recomputation_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        model = make_model().train()
        model.recompute = recompute
        torch.manual_seed(2)
        model.loss(*make_clip()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_heads": 5}, "give a multiple of num_heads=5"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"num_prompt_frames": 4}, "num_prompt_frames=4: give a whole number from 1 to 3"),
        ({"max_corrupt_rate": 1.5}, "max_corrupt_rate=1.5"),
        ({"non_mlm_ratio": -0.1}, "non_mlm_ratio=-0.1"),
        ({"dropout": 1.0}, "dropout=1"),
        ({"look_back": 2}, "look_back=2"),
        ({"mup_base_width": -1}, "mup_base_width=-1"),
        ({"layout": LayoutConfig(first_target_step=0)}, "first_target_step=0"),
    ],
)
def test_bad_settings_say_what_to_do(setting, message):
    with pytest.raises(BadInput, match=message):
        replace(CONFIG, **setting)


def test_clips_that_do_not_fit_say_what_to_do():
    model = make_model()
    tokens, actions = make_clip(5)
    for ask in (model.loss, model.score):
        with pytest.raises(BadInput, match="5 frames, but the model sees 1 to 4"):
            ask(tokens, actions)
        with pytest.raises(BadInput, match="use the tokenizer"):
            ask(tokens[:, :4, :1], actions)
        with pytest.raises(BadInput, match="choose the action columns"):
            ask(tokens[:, :4], actions[..., :1])
    with pytest.raises(BadInput, match="1 frame; a masked model learns"):
        model.loss(tokens[:, :1], actions)
    with pytest.raises(BadInput, match="multiply to 12, but the tokens have 13"):
        build_dynamics(CONFIG, replace(SPEC, vocab_size=13), 0)


def test_it_learns_to_copy_the_frame_before():
    torch.manual_seed(0)
    model = build_dynamics(replace(CONFIG, max_corrupt_rate=0.0), SPEC, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        frame = torch.randint(0, 12, (32, 1, 2, 3))
        loss = model.loss(frame.expand(-1, 4, -1, -1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frame = torch.randint(0, 12, (32, 1, 2, 3))
    with torch.no_grad():
        nats = model.score(frame.expand(-1, 4, -1, -1)).nats[:, 1:].mean()
    assert nats < 0.5 * math.log(12)
