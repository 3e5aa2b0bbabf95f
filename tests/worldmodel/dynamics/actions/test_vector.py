"""The scale of continuous actions, in networks of every kind."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.actions.vector import ActionVector
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
MEAN, STD = (0.1, 13.0), (0.2, 4.0)
STANDARD = LayoutConfig("continuous", action_scale="standard", action_mean=MEAN, action_std=STD)
KINDS = {
    "gpt": GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4),
    "masked": MaskedConfig(dim=24, num_layers=2, num_heads=2, context_steps=4),
    "whole frame": WholeFrameConfig(dim=24, num_layers=2, num_heads=2, context_steps=4),
}


def make_model(kind: str, layout: LayoutConfig) -> Dynamics:
    torch.manual_seed(0)
    return build_dynamics(replace(KINDS[kind], layout=layout), SPEC, 2).eval()


def make_clip() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, 4, 2, 3)), torch.randn(2, 4, 2)


def test_each_column_is_read_in_its_own_deviations() -> None:
    vector = ActionVector(STANDARD, 2, 8, 0.1)
    rows = torch.tensor([[[0.1, 13.0], [0.3, 17.0], [-0.1, 5.0]]])
    expected = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [-1.0, -2.0]]])
    torch.testing.assert_close(vector.scaled(rows), expected)
    plain = ActionVector(LayoutConfig("continuous"), 2, 8, 0.1)
    assert torch.equal(plain.scaled(rows), rows.sign() * rows.abs().log1p())
    assert vector.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_reads_standardised_actions(kind: str) -> None:
    """As one that reads symlog, whose actions are scaled beforehand."""
    tokens, scaled = make_clip()
    raw = scaled * torch.tensor(STD) + torch.tensor(MEAN)
    undone = scaled.sign() * scaled.abs().expm1()
    ours, plain = make_model(kind, STANDARD), make_model(kind, LayoutConfig("continuous"))
    expected = plain.score(tokens, undone).nats
    torch.testing.assert_close(ours.score(tokens, raw).nats, expected)
    assert not torch.equal(ours.score(tokens, undone).nats, expected)
    greedy = Sampling(greedy=True)
    futures = rollout(ours, tokens[:, :2], raw, 3, greedy)
    assert torch.equal(futures, rollout(plain, tokens[:, :2], undone, 3, greedy))


@pytest.mark.parametrize("kind", KINDS)
def test_its_moments_are_a_part_of_the_config(kind: str) -> None:
    config = replace(KINDS[kind], layout=STANDARD)
    assert from_description(describe(config)) == config
    unknown = replace(KINDS[kind], layout=LayoutConfig("continuous", action_scale="standard"))
    assert unknown.standardised((MEAN, STD)) == config
    given = config.standardised(((5.0, 5.0), (6.0, 6.0)))
    assert given == config
    assert KINDS[kind].standardised((MEAN, STD)) == KINDS[kind]
    assert config.without_actions().layout == LayoutConfig("none")
    with pytest.raises(BadInput, match="training takes them from its drives"):
        build_dynamics(unknown, SPEC, 2)
    with pytest.raises(BadInput, match="for 3 action columns"):
        build_dynamics(config, SPEC, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"action_scale": "loud"},
        {"actions": "binned", "action_scale": "standard"},
        {"action_mean": (1.0,)},
        {"action_scale": "standard", "action_std": (0.0,)},
    ],
)
def test_settings_that_would_do_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"layout\.action_"):
        LayoutConfig(**{"actions": "continuous", **wrong})
