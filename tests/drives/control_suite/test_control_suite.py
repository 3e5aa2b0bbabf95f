"""Episodes of the control suite: policies of several skills, drives with rewards, refusals."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from drives.control_suite.__main__ import main
from drives.control_suite.config import TASKS, ControlSuiteConfig
from drives.control_suite.policies import GAITS, HELD, SkilledPolicy
from drives.control_suite.simulator import ControlSuite, load
from drives.folder import open_drives
from training.errors import BadInput

WORDS = ["--seconds=0.2", "--size=32", "--num-train=2", "--num-val=0", "--num-test=1"]


def acted(skill: float, seed: int = 0, count: int = 2 * HELD) -> np.ndarray:
    policy = SkilledPolicy(GAITS["cheetah_run"], skill, np.random.default_rng(seed))
    return np.array([policy.act(frame * 0.02) for frame in range(count)])


def test_a_skill_is_the_share_of_the_gait() -> None:
    gait, random, half = acted(1.0), acted(0.0), acted(0.5)
    np.testing.assert_allclose(half, (gait + random) / 2)
    np.testing.assert_array_equal(random[0], random[HELD - 1])
    assert not np.array_equal(random[0], random[HELD])
    assert np.abs(gait).max() <= 1
    assert not np.array_equal(acted(0.0, seed=1), random)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task=hopper_hop"], "--task=.hopper_hop.: choose one of cheetah_run"),
        (["--num-train=0"], "--num_train=0"),
        (["--seconds=0.02"], "--seconds=0.02: gives less than two frames"),
        (["--size=8"], "--size=8: give a whole number from 16"),
        (["--size=512"], "--size=512: give a whole number from 16 to 480"),
        (["--seed=5000"], "--seed=5000: give a whole number from 0 to 4000"),
        (["--seconds=10", "--repeat=7"], "--seconds=10: are 1001 control steps of cheetah_run"),
    ],
)
def test_settings_out_of_range_are_named(words: list[str], message: str, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "out"), *words])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_and_a_mujoco_that_is_too_new_are_told(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("drives.control_suite.simulator.import_module", missing)
    with pytest.raises(BadInput, match=r"needs the packages dm-control and mujoco<4; pip install"):
        load("cheetah_run", 0)
    new = SimpleNamespace(__version__="4.0.0")
    monkeypatch.setattr("drives.control_suite.simulator.import_module", lambda name: new)
    with pytest.raises(BadInput, match=r"mujoco 4\.0\.0: dm-control does not run with it"):
        load("cheetah_run", 0)


@pytest.fixture
def suite() -> None:
    try:
        importlib.import_module("dm_control")
        ControlSuite("cheetah_run", 0).frame(16)
    except Exception as error:  # the extra, or a renderer, is missing
        pytest.skip(f"the control suite cannot render here: {error}")


def test_episodes_are_drives_with_actions_and_rewards(suite, tmp_path: Path, capsys) -> None:
    main([str(tmp_path / "out"), *WORDS])
    drives = open_drives(tmp_path / "out")
    assert [drive.split for drive in drives] == ["test", "train", "train"]
    assert drives[0].action_names == (*(f"action_{joint}" for joint in range(6)), "reward")
    assert drives[0].fps == 50
    assert len(drives[0].actions) == 10
    frames = [np.stack(list(drive.frames())).astype(float) for drive in drives]
    assert frames[0].shape == (10, 32, 32, 3)
    assert all(np.abs(one[0] - one[-1]).mean() > 0.1 for one in frames)
    main([str(tmp_path / "again"), *WORDS])
    for one, two in zip(drives, open_drives(tmp_path / "again"), strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out"), *WORDS])
    assert "exists already" in capsys.readouterr().err


def test_the_gait_earns_more_than_random_actions(suite) -> None:
    earned = {}
    for skill in (0.0, 1.0):
        body = ControlSuite("cheetah_run", 1)
        policy = SkilledPolicy(GAITS["cheetah_run"], skill, np.random.default_rng(0))
        earned[skill] = sum(body.advance(policy.act(body.time_s)) for _ in range(75))
    assert earned[1.0] > 3 * earned[0.0]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_gait_and_a_rate(task: str, suite) -> None:
    config = ControlSuiteConfig(task)
    body = ControlSuite(task, 0)
    body.advance(GAITS[task].act(0.0))
    assert body.time_s * config.fps == pytest.approx(1)
