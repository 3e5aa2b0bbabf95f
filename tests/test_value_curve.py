"""The value-error curve: what frames are paired with what returns, and with what rollouts."""

from types import SimpleNamespace

import numpy as np
import pytest

import benchmarks.returns
from benchmarks.returns import Rewards, State
from benchmarks.values import HELD, OCCUPANCY, Point, rivals
from worldmodel.evaluation.values.estimates import whole_return

LENGTH, STEPS, GAMMA = 12, 5, 0.5  # 0.5^5 < 5 %


@pytest.fixture
def rewards() -> Rewards:
    """A drive whose frames tell their number; a step's reward is its row's, squared."""
    number = np.arange(LENGTH)
    columns = np.stack([number, number**2], axis=1).astype(np.float32)
    drive = SimpleNamespace(
        id="a",
        num_steps=LENGTH,
        damage="",
        tokens=np.repeat(number[:, None, None], 2, axis=1).repeat(3, axis=2),
        columns=columns,
        actions=columns[:, :1],
    )
    spec = SimpleNamespace(grid=(1, 2, 3), step_s=0.1)
    return Rewards(SimpleNamespace(spec=spec, drives=lambda split: [drive]), 1, GAMMA)


def test_a_state_is_paired_with_what_followed_it(rewards) -> None:
    (state,) = rewards.states("test", 1, past=3)
    assert state.tokens[:, 0, 0].tolist() == [0, 1, 2]
    assert state.future[:, 0, 0].tolist() == [3, 4, 5, 6, 7]
    assert state.actions[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert state.value == pytest.approx(whole_return(np.arange(2.0, 7.0) ** 2, GAMMA))


def test_a_value_function_learns_the_return_from_the_newest_frame(rewards, monkeypatch) -> None:
    monkeypatch.setattr(benchmarks.returns, "fit_rewards", lambda *known, **_: known)
    stacks, returns, *_ = rewards.value_head(stack=3)
    assert stacks[:, :, 0, 0].tolist() == [[t - 2, t - 1, t] for t in range(2, 7)]
    told = [float(whole_return(np.arange(t, t + STEPS) ** 2.0, GAMMA)) for t in range(2, 7)]
    assert (returns / (1 - GAMMA)).tolist() == pytest.approx(told)


def test_rollouts_of_equal_and_of_ten_times_the_time_are_the_rivals() -> None:
    def point(way: str, budget: str, estimate: float, seconds: float) -> Point:
        return Point(way, budget, np.full((2, 3), estimate), seconds)

    found = [
        point(OCCUPANCY, "1 samples", 3.0, 0.2),
        point(HELD, "short", 1.0, 0.3),
        point(HELD, "long", 2.0, 1.9),
        point("rollouts, told", "told", 0.0, 2.0),
    ]
    states = [State(name, *[None] * 3, value=0.0, truncated=0.0) for name in "ab"]
    equal, slower = rivals(found, states)
    assert equal == "- 1 samples (0.20 s) against short (0.30 s): 8 [8, 8]"
    assert slower == "- 1 samples (0.20 s) against long (1.90 s): 5 [5, 5]"
