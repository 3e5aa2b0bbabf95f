"""The trivial predictors, where their cross entropy is known."""

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from worldmodel.evaluation.floors import floors
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld


def drive(tokens: np.ndarray, split: str) -> TokenDrive:
    return TokenDrive("d", split, tokens, np.zeros((len(tokens), 0), np.float32))


def noise(seed: int, steps: int = 4000, vocab: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, (steps, 2, 3))


def test_on_pure_noise_every_floor_is_the_uniform_entropy():
    scores = floors([drive(noise(0), "train")], [drive(noise(1), "test")], 16)
    for name, nats in scores.items():
        assert nats == pytest.approx(np.log(16), rel=0.01), name


def test_a_constant_cell_is_seen_by_position_and_a_still_scene_by_copy():
    cells = np.tile(np.arange(6).reshape(1, 2, 3), (500, 1, 1))
    scores = floors([drive(cells, "train")], [drive(cells, "test")], 16)
    assert scores["unigram"] == pytest.approx(np.log(6), rel=0.01)
    assert scores["position"] < 0.02
    assert scores["copy_last_frame"] < 0.02
    assert scores["previous_token"] < 0.02


def test_copying_costs_what_the_process_says():
    """Each cell is redrawn uniformly with probability p: the conditional entropy is closed."""
    world = KnownEntropyWorld(KnownEntropyConfig(yaw_probs=(0.0, 1.0, 0.0)))
    train, test = (world.sample(6000, seed)[0] for seed in (0, 1))
    scores = floors([drive(train, "train")], [drive(test, "test")], world.spec.vocab_size)
    assert scores["copy_last_frame"] == pytest.approx(world.entropy(), rel=0.02)
    assert scores["previous_token"] == pytest.approx(world.entropy(), rel=0.02)
    assert scores["unigram"] == pytest.approx(np.log(8), rel=0.01)


def test_unseen_tokens_cost_a_finite_amount():
    scores = floors([drive(noise(0, 50, 4), "train")], [drive(noise(1, 50, 16), "test")], 16)
    assert all(np.isfinite(list(scores.values())))
