"""Kinds that give logits of all tokens: actions, dropped actions, loss and score, gradients."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
GPT = GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4)
WHOLE = WholeFrameConfig(dim=24, num_layers=4, num_heads=2, context_steps=4)
KINDS = {
    "gpt": GPT,
    "gpt, learned positions": replace(GPT, positions="learned", bias=True),
    "whole frame": WHOLE,
    "whole frame, inner layers": replace(WHOLE, inner_layers=1),
}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def make_model(kind: str, layout: str = "continuous") -> Dynamics:
    torch.manual_seed(0)
    return build_dynamics(replace(KINDS[kind], layout=LayoutConfig(layout, num_bins=8)), SPEC, 2)


def make_clip() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, 4, 2, 3)), torch.randn(2, 4, 2)


@pytest.mark.parametrize("layout", ["continuous", "binned"])
def test_an_action_changes_the_frame_it_explains_and_later_ones(kind: str, layout: str) -> None:
    model = make_model(kind, layout)
    tokens, actions = make_clip()
    changed = actions.clone()
    changed[:, 1] += 5
    change = (model(tokens, changed) - model(tokens, actions)).abs().amax(dim=(0, 3))
    assert change[:2].max() == 0
    assert change[2:].min() > 0


@pytest.mark.parametrize("layout", ["continuous", "binned"])
def test_dropped_actions_are_not_read(kind: str, layout: str) -> None:
    model = make_model(kind, layout)
    tokens, actions = make_clip()
    drop = torch.tensor([True, False])
    kept, dropped = model(tokens, actions), model(tokens, actions, drop)
    assert torch.equal(dropped[0], model(tokens, actions * 9, drop)[0])
    assert not torch.equal(dropped[0], kept[0])
    torch.testing.assert_close(dropped[1], kept[1])


def test_loss_and_score_are_the_cross_entropy_of_the_logits(kind: str) -> None:
    model = make_model(kind)
    tokens, actions = make_clip()
    log_probs = model(tokens, actions).log_softmax(-1)
    expected = -log_probs.gather(-1, tokens.flatten(2)[..., None])[..., 0]
    scores = model.score(tokens, actions)
    torch.testing.assert_close(scores.nats, expected)
    assert torch.equal(scores.correct, log_probs.argmax(-1) == tokens.flatten(2))
    torch.testing.assert_close(model.loss(tokens, actions), expected[:, 1:].mean())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_parameter_learns(kind: str, layout: str) -> None:
    """All but the rows that cannot occur; the embeddings of start and "no action" do."""
    model = make_model(kind, layout)
    tokens, actions = make_clip()
    model.loss(tokens, actions, torch.tensor([True, False])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
