"""Moments of actions, and how they come from the train drives into a checkpoint."""

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from worldmodel.action_ranges import action_facts, action_moments, action_ranges
from worldmodel.load import load_world_model


def drive(actions: np.ndarray, damage: str = "") -> TokenDrive:
    tokens = np.zeros((len(actions), 1, 1), np.uint16)
    return TokenDrive("d", "train", tokens, np.asarray(actions, np.float32), damage)


def test_moments_are_those_of_every_column_without_outliers() -> None:
    rng = np.random.default_rng(0)
    actions = np.stack([0.2 * rng.normal(size=3000), 13 + rng.normal(size=3000)], axis=1)
    mean, std = action_moments([drive(actions)])
    assert mean == pytest.approx(actions.mean(0), abs=1e-5)
    assert std == pytest.approx(actions.std(0), rel=1e-5)
    actions[7] = [1e6, -1e6]
    broken = action_moments([drive(actions), drive(actions + 1e9, damage="unreadable")])
    assert broken[0] == pytest.approx(mean, abs=0.01)
    assert broken[1] == pytest.approx(std, rel=0.01)


def test_a_constant_column_has_deviation_1() -> None:
    constant = np.full((50, 2), [0.3, 17.77])
    mean, std = action_moments([drive(constant)])
    assert mean == pytest.approx([0.3, 17.77])
    assert std == (1.0, 1.0)
    assert action_moments([drive(np.zeros((5, 0)))]) == ((), ())


def test_the_facts_of_one_reading_are_those_of_two() -> None:
    drives = [drive(np.random.default_rng(1).normal(size=(100, 3)))]
    facts = action_facts(drives)
    assert facts["action_ranges"] == action_ranges(drives)
    assert facts["action_moments"] == action_moments(drives)


def test_a_checkpoint_keeps_moments_and_names_of_its_data(composed, fit) -> None:
    overrides = (
        "+debug=fast",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "model.network.num_layers=2",
        "model.network.layout.action_scale=standard",
        "model.network.layout.action_features=[path]",
        "data.batch_size=2",
        "data.num_val_windows=2",
        "callbacks.media=null",
    )
    _, run, trainer = fit(composed("whole_tiny", *overrides))
    layout = load_world_model(run.folder).network.config.layout
    store = trainer.datamodule.store
    assert layout.action_scale == "standard"
    assert (layout.action_mean, layout.action_std) == action_moments(store.drives("train"))
    assert layout.action_columns == store.action_names
