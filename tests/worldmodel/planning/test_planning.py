"""Planning in dreams: the search, the proposals, values of both kinds of models, the agent."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.planning import values as values_room
from worldmodel.planning.agent import PlanningAgent
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.proposals import RecordedActions
from worldmodel.planning.search import best_actions
from worldmodel.planning.values import ActionValues

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
SHAPE = {"dim": 24, "num_layers": 1, "num_heads": 2, "layout": LayoutConfig("continuous")}
KINDS = {
    "gpt": GPTConfig(**SHAPE, context_steps=4),
    "occupancy": OccupancyConfig(**SHAPE, context_steps=3, gamma=0.8),
    "occupancy of one frame": OccupancyConfig(**SHAPE, context_steps=2, gamma=0.8),
    "occupancy of two frames": OccupancyConfig(**SHAPE, context_steps=3, gamma=0.8, stack=2),
}


class FirstToken(nn.Module):
    """The reward of a frame is its first token."""

    stack = 1

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., 0, 0].float()


def values_of(kind: str, head: type[nn.Module] = FirstToken, **settings) -> ActionValues:
    torch.manual_seed(0)
    network = build_dynamics(KINDS[kind], SPEC, 2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)  # as made, it hardly hears an action
    return ActionValues(network, head(), gamma=0.5, **settings)


def drive(rows: list[list[float]]) -> SimpleNamespace:
    return SimpleNamespace(actions=np.array(rows, np.float32))


def test_the_cross_entropy_method_goes_on_where_shooting_ends() -> None:
    goal, asked = torch.tensor([[0.3, -0.2], [0.1, 0.4]]), []

    def value(candidates: torch.Tensor) -> torch.Tensor:
        asked.append(candidates)
        return -((candidates - goal) ** 2).sum(dim=(1, 2))

    proposals = torch.rand(24, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = [
        best_actions(
            value,
            proposals,
            PlanningConfig(num_candidates=24, rounds=rounds, num_elites=4),
            torch.Generator().manual_seed(0),
        )
        for rounds in (1, 8)
    ]
    assert torch.equal(found[0], proposals[value(proposals).argmax()])
    assert (found[0] - goal).abs().max() > 0.2
    assert (found[1] - goal).abs().max() < 0.1
    assert all(one.abs().max() <= proposals.abs().max() for one in asked)


def test_proposals_are_what_was_driven_from_like_rows() -> None:
    slow = drive([[0.0, 1.0], [0.1, 1.0], [0.2, 1.0], [0.3, 1.0]])
    fast = drive([[0.5, 20.0], [0.6, 20.0], [0.7, 20.0], [0.8, 20.0]])
    proposals = RecordedActions([slow, fast, drive([[9.0, 9.0]])], horizon=2)
    found = proposals(torch.tensor([0.0, 1.0]), 1, torch.Generator().manual_seed(0))
    assert found.shape == (1, 2, 2)
    near = RecordedActions([slow] * 10 + [fast] * 10, horizon=2)
    for seed in range(5):
        found = near(torch.tensor([0.5, 20.0]), 2, torch.Generator().manual_seed(seed))
        assert (found[..., 1] == 20).all()
    with pytest.raises(BadInput, match=r"planning\.horizon=4: every drive is shorter"):
        RecordedActions([slow], horizon=4)


def test_a_rollout_is_worth_its_discounted_rewards_and_an_occupancy_its_mean() -> None:
    rewards = torch.tensor([[[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]]])
    assert values_of("gpt").of_rewards(rewards).tolist() == [2.0 + 1.0 + 0.5]
    occupancy = values_of("occupancy")
    assert occupancy.gamma == 0.8
    assert occupancy.of_rewards(rewards[..., :1]).tolist() == pytest.approx([2.0 / 0.2])


@pytest.mark.parametrize(("kind", "steps"), [("gpt", 3), ("occupancy", 1)])
def test_dreams_follow_the_state_and_the_candidates(kind: str, steps: int) -> None:
    judge = values_of(kind, num_samples=16)
    tokens = torch.randint(0, 11, (2, 2, 3), generator=torch.Generator().manual_seed(1))
    candidates = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(2))
    past = torch.zeros(1, 2)
    found = judge.rewards(tokens, past, candidates, seed=3)
    assert found.shape == (5, 16, steps)
    assert torch.equal(found, judge.rewards(tokens, past, candidates, seed=3))
    assert not torch.equal(found, judge.rewards(tokens, past, candidates, seed=4))
    assert not torch.equal(found, judge.rewards(tokens, past, 3 + candidates, seed=3))
    alike = judge.rewards(tokens, past, candidates[:1].expand(4, -1, -1), seed=3)
    assert (alike == alike[0]).all(), "equal candidates met other chances"


def test_an_agent_takes_the_action_whose_dream_pays(monkeypatch) -> None:
    """Dreams in which the first action is what the first token becomes."""

    def dreamt(network, tokens, actions, horizon, sampling, num_futures):
        token = actions[:, len(tokens[0]) - 1, 0].round().long().clamp(min=0)
        return token[:, None, None, None, None].expand(-1, num_futures, horizon, 2, 3)

    monkeypatch.setattr(values_room, "rollout", dreamt)
    rows = [[float(value), 1.0] for value in (0, 7, 1, 3, 2, 9, 4, 0)]
    config = PlanningConfig(num_candidates=7, horizon=1)
    for kind in ("gpt", "occupancy", "occupancy of one frame"):
        agent = PlanningAgent(values_of(kind), RecordedActions([drive(rows)], 1), config)
        agent.see(torch.zeros(2, 3, dtype=torch.long))
        with pytest.raises(BadInput, match="1 frames and 0 rows of actions were seen; show 2"):
            agent.act()
        for _ in range(5):
            agent.see(torch.zeros(2, 3, dtype=torch.long), torch.tensor([0.0, 1.0]))
        assert agent.act()[0] == 9


def test_an_agent_of_one_frame_plans_from_the_newest() -> None:
    """Two frames have a row between them, which the plan goes on from; the model reads one."""
    config, rows = PlanningConfig(num_candidates=4, horizon=1), drive([[0.5, 1.0]] * 8)
    judge = values_of("occupancy of one frame")
    assert judge.most_frames == 1
    agent = PlanningAgent(judge, RecordedActions([rows], 1), config)
    agent.see(torch.zeros(2, 3, dtype=torch.long))
    assert not agent.is_ready
    for _ in range(2):
        agent.see(torch.ones(2, 3, dtype=torch.long), torch.tensor([0.5, 1.0]))
    assert agent.act().shape == (2,)


class Change(nn.Module):
    """The reward of a frame is how its first token changed."""

    stack = 2

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., 0, 0].float().diff(dim=-1)


@pytest.mark.parametrize("kind", ["gpt", "occupancy of two frames"])
def test_rewards_of_two_frames_are_read_from_the_newest_and_dreamt_ones(kind: str) -> None:
    judge = values_of(kind, Change, num_samples=2)
    tokens = torch.randint(0, 11, (2, 2, 3), generator=torch.Generator().manual_seed(1))
    candidates, past = torch.randn(5, 3, 2), torch.zeros(1, 2)
    frames = rollout(
        judge.network,
        tokens.expand(5, -1, -1, -1),
        torch.cat([past.expand(5, -1, -1), candidates], dim=1),
        3 if kind == "gpt" else 2,
        replace(judge.sampling, seed=3),
        2,
    )[..., 0, 0]
    if kind == "gpt":
        frames = torch.cat([tokens[-1, 0, 0].expand(5, 2, 1), frames], dim=2)
    found = judge.rewards(tokens, past, candidates, seed=3)
    assert torch.equal(found, frames.float().diff(dim=-1))
    each = judge.rewards(tokens.expand(5, -1, -1, -1), past.expand(5, -1, -1), candidates, 3)
    assert torch.equal(each, found)


def test_a_head_and_samples_of_other_lengths_are_refused() -> None:
    with pytest.raises(BadInput, match=r"head reads 2 frames, a sample .* has 1; give both"):
        values_of("occupancy", Change)


def test_a_model_without_actions_cannot_plan() -> None:
    network = build_dynamics(GPTConfig(dim=24, num_layers=1, num_heads=2), SPEC, 0)
    with pytest.raises(BadInput, match="the world model reads no actions"):
        ActionValues(network, FirstToken(), 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.0}, r"planning\.gamma=1\.0"),
        ({"num_elites": 17}, r"planning\.num_elites=17"),
        ({"rounds": 0}, r"planning\.rounds=0"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        PlanningConfig(**changes)
