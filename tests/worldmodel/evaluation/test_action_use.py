"""What wrong actions cost: each variant is what it says, and the change that of the scores."""

import math

import pytest
import torch

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.dynamics.whole_frame.model import WholeFrame
from worldmodel.evaluation.action_use import VARIANTS, action_use, held, shuffled
from worldmodel.windows import TokenClip

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")


def make_model(layout: str) -> WholeFrame:
    torch.manual_seed(0)
    config = WholeFrameConfig(24, 2, 0, 2, context_steps=4, layout=LayoutConfig(layout))
    model = build_dynamics(config, SPEC, 2).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_clips() -> list[TokenClip]:
    torch.manual_seed(1)
    tokens, actions = torch.randint(0, 11, (5, 4, 2, 3)), 3 * torch.randn(5, 4, 2)
    return [TokenClip(tokens[:3], actions[:3]), TokenClip(tokens[3:], actions[3:])]


def test_shuffled_actions_are_those_of_another_clip_each_once() -> None:
    for num in (2, 3, 50):
        actions = torch.arange(num, dtype=torch.float32).view(-1, 1, 1).expand(-1, 3, 2)
        moved = shuffled(actions)[:, 0, 0].long()
        assert (moved != torch.arange(num)).all()
        assert torch.equal(moved.sort().values, torch.arange(num))


def test_held_actions_are_the_first_one() -> None:
    actions = torch.randn(2, 3, 2)
    assert torch.equal(held(actions)[:, 2], actions[:, 0])


def test_the_change_is_that_of_the_scores() -> None:
    model, clips = make_model("continuous"), make_clips()
    tokens, actions = (torch.cat([getattr(c, n) for c in clips]) for n in ("tokens", "actions"))

    def bits(changed: torch.Tensor) -> float:
        return model.score(tokens, changed).nats[:, 1:].mean().item() / math.log(2)

    use = action_use(model, clips, "cpu")
    assert list(use) == list(VARIANTS)
    expected = {"zeroed": 0 * actions, "halved": actions / 2, "x1.5": actions * 1.5}
    expected |= {"held": held(actions), "shuffled": shuffled(actions)}
    for name, changed in expected.items():
        assert use[name] == pytest.approx(bits(changed) - bits(actions), abs=1e-4), name
        assert abs(use[name]) > 1e-3, name


def test_what_cannot_be_asked_is_left_out() -> None:
    assert action_use(make_model("none"), make_clips(), "cpu") == {}
    one = [TokenClip(make_clips()[0].tokens[:1], make_clips()[0].actions[:1])]
    assert set(action_use(make_model("binned"), one, "cpu")) == set(VARIANTS) - {"shuffled"}
