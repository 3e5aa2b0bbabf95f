"""The nearest train frame: found exactly, worth what its successor is, and a look for leaks."""

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from worldmodel.evaluation.floors import nearest
from worldmodel.evaluation.floors.nearest import nearest_neighbours


def drive(name, tokens, damage=""):
    return TokenDrive(name, "train", tokens, np.zeros((len(tokens), 0), np.float32), damage)


def noise(seed, steps=60, vocab=16, grid=(3, 4)):
    return np.random.default_rng(seed).integers(0, vocab, (steps, *grid)).astype(np.uint16)


UNIFORM = np.full(16, 1 / 16)


def test_the_neighbour_is_that_of_a_search_over_all_pairs(monkeypatch):
    monkeypatch.setattr(nearest, "PIECE", 7)
    train = [drive("a", noise(0)), drive("b", noise(1))]
    windows = np.stack([noise(seed, 4) for seed in (2, 3, 4)])
    found = nearest_neighbours(train, windows, UNIFORM)
    assert found.steps == [1, 2, 3]
    for number, window in enumerate(windows):
        shares = {
            f"{one.id}@{step}": np.mean(one.tokens[step] == frame)
            for frame in window[:-1]
            for one in train
            for step in range(59)
        }
        assert found.share[number] == max(
            np.mean(one.tokens[step] == frame)
            for frame in window[:-1]
            for one in train
            for step in range(59)
        )
        assert found.places[number] in shares


def test_a_test_drive_that_was_trained_on_is_found():
    own = noise(0)
    train = [drive("a", noise(1)), drive("broken", own, "cut off"), drive("b", own)]
    windows = np.stack([noise(2, 4), own[20:24]])
    found = nearest_neighbours(train, windows, UNIFORM)
    assert found.leaks() == [1]
    assert found.share[1] == 1
    assert found.places[1] == "b@20"
    assert found.share[0] < 0.6


def test_its_successor_is_worth_what_it_is_worth_between_train_drives():
    """Two loops of the same street: what follows is right in three of four cells."""
    rng, street = np.random.default_rng(0), noise(0)

    def lap():
        redrawn = rng.random(street.shape) < 0.25 * 16 / 15
        return np.where(redrawn, rng.integers(0, 16, street.shape), street).astype(np.uint16)

    train = [drive(name, lap()) for name in "abcdef"]
    windows = np.stack([lap()[i : i + 5] for i in range(0, 55, 5)])
    found = nearest_neighbours(train, windows, UNIFORM)
    right = 0.75**2 + 0.25 * 0.25 / 15  # both kept, or redrawn alike
    repeat = right  # measured on train drives
    expected = -right * np.log(repeat + (1 - repeat) / 16) - (1 - right) * np.log((1 - repeat) / 16)
    assert found.nats.mean() == pytest.approx(expected, rel=0.05)


def test_one_train_drive_promises_nothing():
    found = nearest_neighbours([drive("a", noise(0))], noise(1, 4)[None], UNIFORM)
    assert found.nats == pytest.approx(np.log(16))


def test_the_phases_of_one_train_drive_promise_nothing_either():
    street = noise(0).repeat(2, axis=0)  # every frame stands twice, so phases are equal
    phases = [drive("a", street[::2]), drive("a@1of2", street[1::2])]
    found = nearest_neighbours(phases, noise(1, 4)[None], UNIFORM)
    assert found.nats == pytest.approx(np.log(16))


def test_few_cells_of_a_large_grid_find_the_same_frame(monkeypatch):
    monkeypatch.setattr(nearest, "MOST_CELLS", 4)
    own = noise(0)
    found = nearest_neighbours([drive("a", noise(1)), drive("b", own)], own[None, 7:10], UNIFORM)
    assert (found.share[0], found.places[0]) == (1, "b@7")
