"""What models of a known world must score: an oracle, a copy, a uniform one, one that is deaf."""

import math

import numpy as np
import pytest
import torch
from known_models import KnownModel

from drives.tokens.store import TokenDrive
from training.loading.loader import listed_loader
from worldmodel.evaluation.action_use import VARIANTS, action_use, bits_by_window, lagged
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.scores import score_windows
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.windows import TokenWindows, collate

WORLD = KnownEntropyWorld()
BITS = 1 / math.log(2)


def drives(split, num, steps, shift=0):
    """Drives whose action rows lie `shift` rows too late."""
    found = []
    for number in range(num):
        tokens, actions = WORLD.sample(steps, [split == "test", number])
        found.append(TokenDrive(f"{split}{number}", split, tokens, np.roll(actions, shift, 0)))
    return found


@pytest.fixture(scope="module")
def windows():
    return TokenWindows(drives("test", 8, 400), 6, stride=6)


def clips(windows):
    return list(listed_loader(windows, range(len(windows)), 50, collate))


def of(windows):
    return [windows.describe(i)["drive"] for i in range(len(windows))]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("oracle", WORLD.entropy()),
        ("deaf", WORLD.entropy(with_actions=False)),
        ("uniform", math.log(8)),
        ("copy", WORLD.entropy() + 0.6 * WORLD.shuffled_penalty() / (1 - (0.09 + 0.16 + 0.09))),
    ],
)
def test_cross_entropy_is_that_of_the_world(windows, kind, expected):
    scores = score_windows(KnownModel(kind), clips(windows), "cpu")
    estimate = mean_over_drives(scores.nats.mean(1).numpy(), of(windows))
    assert estimate.value == pytest.approx(expected, rel=0.03)
    assert estimate.low - 0.02 <= expected <= estimate.high + 0.02


@pytest.mark.parametrize("kind", ["deaf", "uniform"])
def test_a_model_that_ignores_actions_costs_the_same_to_the_last_digit(windows, kind):
    model, batches = KnownModel(kind), clips(windows)
    true = bits_by_window(model, batches, "cpu", variants={"true": true_actions(windows)})["true"]
    for values in bits_by_window(model, batches, "cpu").values():
        np.testing.assert_array_equal(values, true)
    assert set(action_use(model, batches, "cpu").values()) == {0.0}


def test_an_oracle_pays_for_wrong_actions_what_the_world_says(windows):
    use = action_use(KnownModel("oracle"), clips(windows), "cpu")
    assert set(use) == set(VARIANTS)
    assert use["shuffled"] == pytest.approx(WORLD.shuffled_penalty() * BITS, rel=0.03)
    # Yaw is -1, 0, 1 with probability 0.3, 0.4, 0.3; zero is wrong in 0.6 of the steps.
    wrong = WORLD.shuffled_penalty() * BITS / (1 - 0.34)
    assert use["zeroed"] == pytest.approx(0.6 * wrong, rel=0.03)
    assert use["x1.5"] == 0  # rounds to the same yaws: a half step more turns no column


def true_actions(windows):
    return torch.stack([torch.from_numpy(windows[i][1]) for i in range(len(windows))])


@pytest.mark.parametrize("shift", [-2, 0, 1])
def test_the_lag_at_which_actions_cost_least_is_that_of_the_data(shift):
    windows = TokenWindows(drives("test", 2, 200, shift), 6, stride=6)
    ids = range(len(windows))
    variants = {str(lag): lagged(windows, ids, lag) for lag in range(-2, 3)}
    bits = bits_by_window(KnownModel("oracle"), clips(windows), "cpu", variants=variants)
    cost = {name: values.mean() for name, values in bits.items()}
    assert min(cost, key=lambda lag: cost[lag]) == str(shift)
    assert cost[str(shift)] == pytest.approx(WORLD.entropy() * BITS, rel=0.05)


def test_rows_beyond_the_ends_of_a_drive_are_its_last_ones():
    windows = TokenWindows(drives("test", 1, 8), 6)
    actions = windows.drives[0].actions
    np.testing.assert_array_equal(lagged(windows, [2], 2)[0], actions[[4, 5, 6, 7, 7, 7]])
    np.testing.assert_array_equal(lagged(windows, [0], -1)[0], actions[[0, 0, 1, 2, 3, 4]])


def test_no_floor_beats_the_oracle_and_a_bigram_is_what_it_must_be(windows):
    tokens = np.stack([windows[i][0] for i in range(len(windows))])
    found = {k: v.mean() for k, v in floors(drives("train", 4, 1000), tokens, 8).items()}
    assert all(nats > WORLD.entropy() for nats in found.values())
    for name in ("unigram", "position"):
        assert found[name] == pytest.approx(math.log(8), rel=0.005), name
    # A cell is its own source where nothing turns (0.4), else an unrelated cell's.
    same = 0.4 * (1 - 0.15 + 0.15 / 8) + 0.6 / 8
    bigram = -same * math.log(same) - (1 - same) * math.log((1 - same) / 7)
    assert found["previous_token"] == pytest.approx(bigram, rel=0.01)
    assert found["copy_last_frame"] == pytest.approx(bigram, rel=0.01)
