"""Worlds that a planner plays in: one start for everyone, rows and frames that fit each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.worlds import control_suite
from benchmarks.worlds.carracing import Tracks
from benchmarks.worlds.control_suite import Stages
from drives.control_suite.policies import GAITS
from tokenizer.load import load_tokenizer

TASK = "cheetah_run"


class Body:
    """Stands in for MuJoCo: earns the mean of what it is told; its picture is its clock."""

    def __init__(self, task: str, seed: int, repeat: int) -> None:
        self.repeat, self.seed, self.time_s = repeat, seed, 0.0

    def advance(self, action: np.ndarray) -> float:
        self.time_s += 0.01 * self.repeat
        return self.repeat * float(np.mean(action))

    def frame(self, size: int) -> np.ndarray:
        return np.full((size, size, 3), round(100 * self.time_s), np.uint8)


def encode(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels[:, 0, :2, :2] * 127.5 + 127.5).round().long()


@pytest.fixture
def stages(monkeypatch) -> Stages:
    monkeypatch.setattr(control_suite, "ControlSuite", Body)
    network = SimpleNamespace(config=SimpleNamespace(image_size=(16, 16)))
    return Stages(SimpleNamespace(network=network, encode=encode), 25.0, TASK)  # type: ignore[arg-type]


def test_a_row_is_held_as_long_as_a_token_stands(stages: Stages) -> None:
    """25 time steps per second, of drives with 50 frames and 100 control steps."""
    body = stages.start(0, 3)
    assert [int(grid[0, 0]) for grid in body.tokens] == [92, 96, 100]
    assert len(body.rows) == 25
    assert body.play(np.full(6, 0.5, np.float32)) == pytest.approx(4 * 0.5)
    assert int(body.tokens[-1][0, 0]) == 104
    assert np.allclose(body.rows[-1], 0.5)
    gait = [GAITS[TASK].act(at) for at in (1.04, 1.06)]
    assert body.play(None) == pytest.approx(2 * np.sum(gait, axis=0).mean())
    assert np.allclose(body.rows[-1], np.mean(gait, axis=0))
    assert stages.start(1, 1).body.seed == stages.start(0, 1).body.seed + 1


def test_cars_start_alike_and_obey() -> None:
    world = Tracks(load_tokenizer("carracing"), 10.0)
    one, other = (world.start(3, 2) for _ in range(2))
    assert len(one.tokens) == 2
    assert torch.equal(torch.stack(one.tokens), torch.stack(other.tokens))
    row = np.array([-1.0, 0.0, 0.3, 0.0, 0.0], np.float32)
    one.play(row)
    other.play(None)
    assert len(one.tokens) == 3
    assert np.allclose(one.rows[-1][:3], row[:3])
    assert not np.allclose(other.rows[-1][:3], row[:3])
