"""Predicted actions: bins per column, their loss, and futures that choose their own actions."""

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Guidance, Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.layout import SequenceLayout
from worldmodel.dynamics.masked.config import MaskedConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
GREEDY = Sampling(greedy=True)


def make_model(weight: float = 0.5, text_tokens: int = 0) -> GPT:
    torch.manual_seed(0)
    layout = LayoutConfig(
        "binned",
        8,
        (-3, -9),
        (3, 9),
        text_tokens=text_tokens,
        text_width=5 * (text_tokens > 0),
        predict_actions=weight,
    )
    config = GPTConfig(
        dim=24, num_layers=2, num_heads=2, context_steps=4, layout=layout, tie_embeddings=False
    )
    model = GPT(config, SPEC, num_actions=2).eval()
    for parameter in model.parameters():  # far from the start: no two logits alike
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


def states_of(model: GPT, tokens: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return model._normed(model(tokens, actions, head_fn=lambda frames, states: states))


def frame_nats(model: GPT, tokens: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
    return model.score(tokens, *conditions).nats[:, 1:].mean()


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), 3 * torch.randn(2, time, 2)


def test_every_column_has_its_own_range_and_bins_know_their_middle() -> None:
    layout = SequenceLayout(LayoutConfig("binned", 8, (-1, 0), (1, 100)), SPEC, 2)
    actions = torch.tensor([[[-5.0, -5.0], [-0.99, 0.1], [0.0, 5.0], [0.99, 99.0], [5.0, 500.0]]])
    assert layout.action_bins(actions)[0].tolist() == [[0, 0], [0, 0], [4, 3], [7, 7], [7, 7]]
    bins = torch.arange(8)[:, None].expand(8, 2)[None]
    assert torch.equal(layout.action_bins(layout.bin_actions(bins)), bins)
    assert layout.bin_actions(bins)[0, 0].tolist() == pytest.approx([-0.834, 0.334], abs=1e-3)


def test_ranges_survive_json_and_must_fit_the_columns() -> None:
    config = LayoutConfig("binned", 8, (-1, 0), (1, 100), predict_actions=0.5)
    assert LayoutConfig(**json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(BadInput, match="for 3 action columns; give one number, or one for each"):
        SequenceLayout(config, SPEC, 3)
    with pytest.raises(BadInput, match="exchange them"):
        LayoutConfig("binned", 8, (-1, 5), (1, 4))
    with pytest.raises(BadInput, match="actions=binned to predict them"):
        LayoutConfig("continuous", predict_actions=0.5)
    with pytest.raises(BadInput, match="this kind only reads actions"):
        MaskedConfig(layout=config, look_back=0)


@pytest.mark.parametrize("text_tokens", [0, 2])
def test_actions_are_predicted_from_all_that_stands_before_them(text_tokens: int) -> None:
    model, (tokens, actions) = make_model(text_tokens=text_tokens), make_clip()
    ids = model.layout.sequence_ids(tokens, actions)
    bins = model.layout.action_bins(actions[:, :3])
    x = states_of(model, tokens, actions)
    total = torch.zeros(2)
    for step in range(1, 4):
        for column in range(2):
            position = step * model.layout.step_length + text_tokens + column
            first = model.layout.vocab_size + column * 10
            assert torch.equal(ids[:, position] - first, bins[:, step - 1, column])
            logits = x[:, position - 1] @ model.action_head.weight[column].T
            total += F.cross_entropy(logits, bins[:, step - 1, column], reduction="none") / 6
    plain = frame_nats(model, tokens, actions)
    torch.testing.assert_close(model.loss(tokens, actions), plain + 0.5 * total.mean())
    drop = torch.tensor([True, False])
    dropped = frame_nats(model, tokens, actions, drop)
    torch.testing.assert_close(model.loss(tokens, actions, drop), dropped + 0.5 * total[1])
    everyone = torch.tensor([True, True])
    assert model.loss(tokens, actions, everyone).isfinite()


def test_weight_zero_has_no_head_and_counts_frames_alone() -> None:
    model, (tokens, actions) = make_model(0.0), make_clip()
    assert not hasattr(model, "action_head")
    plain = frame_nats(model, tokens, actions)
    torch.testing.assert_close(model.loss(tokens, actions), plain)


@pytest.mark.parametrize("text_tokens", [0, 2])
def test_missing_actions_are_imagined_and_given_ones_override(text_tokens: int) -> None:
    """Greedy and beyond the context: each imagined action is the likeliest after its past."""
    model, (tokens, actions) = make_model(text_tokens=text_tokens), make_clip(2)
    horizon, step_length = 5, model.layout.step_length
    future = rollout(model, tokens, actions[:, :1], horizon, GREEDY, slide_steps=1)[:, 0]
    clip, known = torch.cat([tokens, future], dim=1), actions[:, :1]
    for step in range(2, 2 + horizon):
        first = max(0, step - 3)
        blank = torch.cat([known, torch.zeros(2, 1, 2)], dim=1)
        for column in range(2):
            with torch.no_grad():
                x = states_of(model, clip[:, first : step + 1], blank[:, first:])
            position = (step - first) * step_length + text_tokens + column - 1
            best = (x[:, position] @ model.action_head.weight[column].T).argmax(-1)
            bins = model.layout.action_bins(blank[:, -1:])
            bins[:, 0, column] = best
            blank[:, -1:, column] = model.layout.bin_actions(bins)[..., column]
        known = blank
    given = rollout(model, tokens, known, horizon, GREEDY, slide_steps=1)[:, 0]
    assert torch.equal(given, future)
    other = rollout(model, tokens, -known, horizon, GREEDY, slide_steps=1)[:, 0]
    assert not torch.equal(other, future)


def test_imagined_actions_follow_the_seed_and_every_future_its_own() -> None:
    model, (tokens, actions) = make_model(), make_clip(2)
    first, again, other = (
        rollout(model, tokens, actions[:, :1], 3, Sampling(seed=seed), num_futures=3)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_who_does_not_predict_actions_needs_them() -> None:
    tokens, actions = make_clip(2)
    with pytest.raises(BadInput, match="1 action rows for a prompt of 2 frames"):
        rollout(make_model(0.0), tokens, actions[:, :1], 3)
    guided = Sampling(guidance=Guidance(1.0, condition="actions"))
    with pytest.raises(BadInput, match="guidance needs every action given"):
        rollout(make_model(), tokens, actions[:, :1], 3, guided)
