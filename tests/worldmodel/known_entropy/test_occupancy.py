"""The discounted future of the known-entropy world against matrices of all frames.

What a model reaches of it: python -m benchmarks occupancy
"""

import numpy as np
import pytest
from known_worlds import TINY, all_frames, likelihoods

from benchmarks.futures.occupancy import WORLD
from training.errors import BadInput
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.occupancy import KnownOccupancy
from worldmodel.known_entropy.world import YAWS, KnownEntropyWorld


def by_matrices(config: KnownEntropyConfig, gamma: float) -> np.ndarray:
    """p(future | past, yaw) [yaw past future] = (1 - gamma) P_a (1 - gamma P)^-1."""
    steps = likelihoods(config)
    steps = steps.reshape(3, steps.shape[1], steps.shape[1], -1).prod(-1)
    mean = np.einsum("a,apn->pn", np.array(config.yaw_probs), steps)
    later = np.linalg.inv(np.eye(len(mean)) - gamma * mean)
    return (1 - gamma) * steps @ later


@pytest.mark.parametrize(
    ("config", "gamma"), [(TINY[0], 0.0), (TINY[0], 0.8), (TINY[2], 0.95), (TINY[5], 0.5)]
)
def test_the_closed_form_is_the_geometric_series(config: KnownEntropyConfig, gamma: float) -> None:
    known, probs, frames = KnownOccupancy(config, gamma), by_matrices(config, gamma), None
    frames = all_frames(config)
    count, (height, width) = len(frames), config.grid[1:]
    past = np.broadcast_to(frames[:, None], (count, count, height, width))
    future = np.broadcast_to(frames[None], past.shape)
    entropies = []
    for yaw, expected in zip(YAWS, probs, strict=True):
        actions = np.full((count, count, 1), yaw, float)
        nats = known.nll(past, future, actions).sum((-2, -1))
        np.testing.assert_allclose(nats, -np.log(expected), rtol=1e-8)
        entropies.append(-(expected * np.log(expected)).sum() / count / (height * width))
    assert known.entropy() == pytest.approx(entropies[0], rel=1e-8)
    np.testing.assert_allclose(entropies, entropies[0], rtol=1e-8)  # whatever the action
    mixed = np.einsum("a,apn->pn", np.array(config.yaw_probs), probs)
    nats = known.nll(past, future).sum((-2, -1))
    np.testing.assert_allclose(nats, -np.log(mixed), rtol=1e-8)
    expected_without = -(mixed * np.log(mixed)).sum() / count / (height * width)
    assert known.entropy(with_actions=False) == pytest.approx(expected_without, rel=1e-8)


def test_without_discount_it_is_the_one_step_world() -> None:
    config = KnownEntropyConfig(grid=(1, 3, 4))
    world, known = KnownEntropyWorld(config), KnownOccupancy(config, 0.0)
    assert known.entropy() == pytest.approx(world.entropy(), rel=1e-12)
    assert known.entropy(False) == pytest.approx(world.entropy(False), rel=1e-12)
    tokens, actions = world.sample(40, 0)
    nats = known.nll(tokens[:-1], tokens[1:], actions[:-1])
    np.testing.assert_allclose(nats, world.optimal_nll(tokens, actions), atol=1e-12)


def test_more_of_the_future_is_less_known() -> None:
    found = [KnownOccupancy(WORLD, gamma).entropy() for gamma in (0.0, 0.5, 0.8, 0.95)]
    assert found == sorted(found)
    assert found[-1] < np.log(WORLD.vocab_size)


@pytest.mark.parametrize("gamma", [1.0, -0.5])
def test_a_discount_out_of_range_is_refused(gamma: float) -> None:
    with pytest.raises(BadInput, match=rf"gamma={gamma}: give a share from 0 to below 1"):
        KnownOccupancy(WORLD, gamma)


def test_a_grid_with_too_many_counts_is_refused_for_the_entropy_alone() -> None:
    known = KnownOccupancy(KnownEntropyConfig(grid=(1, 4, 8)), 0.5)
    with pytest.raises(BadInput, match=r"grid=\(1, 4, 8\): its exact discounted entropy"):
        known.entropy()
    tokens, _ = KnownEntropyWorld(known.config).sample(3, 0)
    assert np.isfinite(known.nll(tokens[:-1], tokens[1:])).all()
