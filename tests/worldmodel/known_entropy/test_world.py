"""The known-entropy world: every closed form against enumeration and against samples."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_worlds import SKEWED, TINY, all_frames, likelihoods

from drives.tokens.store import TokenStore
from training.errors import BadInput
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import ACTION_NAMES, YAWS, KnownEntropyWorld


def brute_force(config: KnownEntropyConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """Per-position entropies with and without actions, and cost of independent actions."""
    factors = likelihoods(config)
    num_frames = factors.shape[1]
    factors = factors.reshape(3, num_frames, num_frames, -1)
    yaw_probs = np.array(config.yaw_probs)
    joint = yaw_probs[:, None, None] * factors.prod(-1) / num_frames
    assert joint.sum() == pytest.approx(1)
    with_actions = -np.einsum("apn,apni->i", joint, np.log(factors))
    prefix = np.einsum("a,apni->pni", yaw_probs, np.cumprod(factors, axis=-1))
    before = np.concatenate([np.ones_like(prefix[..., :1]), prefix[..., :-1]], axis=-1)
    without = -np.einsum("apn,pni->i", joint, np.log(prefix / before))
    shuffled = -np.einsum("apn,b,bpni->", joint, yaw_probs, np.log(factors)) / factors.shape[-1]
    return with_actions, without, float(shuffled)


@pytest.mark.parametrize("config", TINY, ids=str)
def test_closed_forms_equal_enumeration(config: KnownEntropyConfig) -> None:
    world = KnownEntropyWorld(config)
    with_actions, without, shuffled = brute_force(config)
    shape = config.grid[1:]
    for given, expected in ((True, with_actions), (False, without)):
        np.testing.assert_allclose(
            world.entropy_by_position(given), expected.reshape(shape), rtol=0, atol=1e-12
        )
    assert world.entropy(True) == pytest.approx(with_actions.mean(), abs=1e-12)
    assert world.entropy(False) == pytest.approx(without.mean(), abs=1e-12)
    assert world.shuffled_penalty() == pytest.approx(shuffled - with_actions.mean(), abs=1e-12)


def test_optimal_nll_equals_enumeration_on_every_pair_of_frames() -> None:
    config = TINY[3]
    frames, factors = all_frames(config), likelihoods(config)
    world = KnownEntropyWorld(config)
    past, following = np.meshgrid(np.arange(len(frames)), np.arange(len(frames)), indexing="ij")
    pairs = np.stack([frames[past], frames[following]], axis=2)
    for index, yaw in enumerate(YAWS):
        actions = np.full((*pairs.shape[:3], 1), yaw, np.float32)
        nll = world.optimal_nll(pairs, actions)[:, :, 0]
        np.testing.assert_allclose(nll, -np.log(factors[index]), atol=1e-12)
    joint = np.einsum("a,apn->pn", config.yaw_probs, factors.prod((-2, -1)))
    nll = world.optimal_nll(pairs).sum((-3, -2, -1))
    np.testing.assert_allclose(nll, -np.log(joint), atol=1e-12)  # the chain rule


@pytest.mark.parametrize("config", [*TINY, replace(TINY[5], grid=(1, 1, 1))], ids=str)
def test_the_best_product_over_cells_equals_enumeration(config: KnownEntropyConfig) -> None:
    world, frames = KnownEntropyWorld(config), all_frames(config)
    factors = likelihoods(config).reshape(3, len(frames), len(frames), -1)
    yaw_probs = np.array(config.yaw_probs)
    joint = np.einsum("a,apn->pn", yaw_probs, factors.prod(-1)) / len(frames)
    marginals = np.einsum("a,apni->pni", yaw_probs, factors)  # q of the cell's token
    expected = -np.einsum("pn,pni->", joint, np.log(marginals)) / factors.shape[-1]
    assert world.entropy_product() == pytest.approx(expected, abs=1e-12)
    past, following = np.meshgrid(np.arange(len(frames)), np.arange(len(frames)), indexing="ij")
    nll = world.product_nll(np.stack([frames[past], frames[following]], axis=2))
    np.testing.assert_allclose(nll.reshape(marginals.shape), -np.log(marginals), atol=1e-12)
    assert world.entropy_product() >= world.entropy(with_actions=False) - 1e-12


def test_what_a_product_over_cells_pays_for_not_knowing_the_action() -> None:
    world = KnownEntropyWorld()
    assert world.entropy_product() > 1.2 * world.entropy(with_actions=False)
    lone = KnownEntropyWorld(replace(world.config, grid=(1, 1, 1)))  # nothing to be learned
    assert lone.entropy_product() == pytest.approx(lone.entropy(with_actions=False))
    tokens, _ = world.sample(20_000, seed=0)
    assert within_standard_errors(world.product_nll(tokens), world.entropy_product())


def within_standard_errors(nll: np.ndarray, expected: float, num: float = 4.0) -> bool:
    """Whether the mean lies near `expected`; frames, unlike tokens, are independent draws."""
    frames = nll.mean((-2, -1)).ravel()
    error = frames.std() / math.sqrt(frames.size)
    assert error < 0.01 * expected  # else the comparison says nothing
    return bool(abs(frames.mean() - expected) < num * error)


def test_samples_of_the_default_world_cost_what_theory_says() -> None:
    world = KnownEntropyWorld()
    tokens, actions = world.sample(20_000, seed=0)
    independent = world.sample(20_000, seed=1)[1]
    assert within_standard_errors(world.optimal_nll(tokens, actions), world.entropy())
    assert within_standard_errors(world.optimal_nll(tokens), world.entropy(False))
    shuffled = world.optimal_nll(tokens, independent)
    assert within_standard_errors(shuffled, world.entropy() + world.shuffled_penalty())
    by_position = world.optimal_nll(tokens)
    error = by_position.std(0) / math.sqrt(len(by_position))
    gap = np.abs(by_position.mean(0) - world.entropy_by_position(False))
    assert (gap < 4.5 * error).all()


def test_actions_moved_by_one_row_cost_as_much_as_shuffled_ones() -> None:
    world = KnownEntropyWorld()
    tokens, actions = world.sample(20_000, seed=2)
    late = world.optimal_nll(tokens, np.roll(actions, 1, axis=0))
    assert within_standard_errors(late, world.entropy() + world.shuffled_penalty())


def test_without_actions_the_frame_reveals_the_action_in_raster_order() -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(yaw_probs=SKEWED))
    by_position = world.entropy_by_position(False).ravel()
    assert (np.diff(by_position) < 0).all()
    assert by_position[0] > 1.5 * world.entropy()
    assert by_position[-1] == pytest.approx(world.entropy(), rel=1e-3)
    assert by_position.mean() == pytest.approx(world.entropy(False), abs=1e-12)
    information = by_position.sum() - world.entropy_by_position(True).sum()
    action_entropy = -sum(prob * math.log(prob) for prob in SKEWED)
    assert 0.95 * action_entropy < information < action_entropy


def test_limits_of_the_parameters() -> None:
    config = KnownEntropyConfig()
    noise = KnownEntropyWorld(replace(config, resample_prob=1.0))
    for with_actions in (True, False):
        assert noise.entropy(with_actions) == pytest.approx(math.log(config.vocab_size))
    assert noise.shuffled_penalty() == pytest.approx(0)
    straight = KnownEntropyWorld(replace(config, yaw_probs=(0.0, 1.0, 0.0)))
    assert straight.entropy(False) == pytest.approx(straight.entropy(), abs=1e-12)
    assert straight.shuffled_penalty() == 0
    bits = KnownEntropyWorld(replace(config, vocab_size=8, resample_prob=1.0)).entropy_bits()
    assert bits == pytest.approx(3)


def test_first_frame_is_uniform_and_stays_so() -> None:
    world = KnownEntropyWorld()
    vocab = world.config.vocab_size
    starts = np.concatenate([world.sample(3, [0, i])[0][[0, 2]] for i in range(2000)])
    for frames in (starts[::2], starts[1::2]):
        frequency = np.bincount(frames.ravel(), minlength=vocab) / frames.size
        assert np.abs(frequency - 1 / vocab).max() < 5 * math.sqrt(1 / vocab / frames.size)
    assert world.first_frame_entropy() == pytest.approx(math.log(vocab))


def test_positive_yaw_moves_the_scene_right() -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(resample_prob=1e-9, yaw_probs=(0.0, 0.0, 1.0)))
    tokens, actions = world.sample(2, seed=0)
    assert (actions == 1).all()
    np.testing.assert_array_equal(tokens[1][:, 1:], tokens[0][:, :-1])
    np.testing.assert_array_equal(tokens[1][:, 0], tokens[0][:, -1])


def test_batched_windows_cost_the_same_as_the_drive_they_are_cut_from() -> None:
    world = KnownEntropyWorld()
    tokens, actions = world.sample(12, seed=3)
    windows = tokens.reshape(3, 4, *tokens.shape[1:])
    for given in (None, actions):
        whole = world.optimal_nll(tokens, given)
        cut = world.optimal_nll(windows, None if given is None else given.reshape(3, 4, 1))
        assert cut.shape == (3, 3, 4, 4)
        np.testing.assert_array_equal(cut[1], whole[4:7])


def test_store_round_trip(tmp_path: Path) -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 3, 5), vocab_size=11))
    world.write_store(tmp_path / "store", num_train=2, num_test=1, steps=20, seed=7)
    store = TokenStore(tmp_path / "store")
    assert store.spec == world.spec
    assert store.action_names == ACTION_NAMES
    assert [drive.id for drive in store.drives("train")] == ["train_0000", "train_0001"]
    (test,) = store.drives("test")
    for drive, seed in zip([*store.drives("train"), test], ([0, 0], [0, 1], [1, 0]), strict=True):
        tokens, actions = world.sample(20, [7, *seed])
        np.testing.assert_array_equal(drive.tokens, tokens)
        np.testing.assert_array_equal(drive.actions, actions)
    meta = store.manifest["drives"]["test_0000"]["meta"]
    assert meta["nats_per_token"] == world.entropy()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    world = KnownEntropyWorld()
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        world.write_store(tmp_path / name, num_train=1, num_test=1, steps=10, seed=seed)
        drives = TokenStore(tmp_path / name).manifest["drives"]
        hashes.append([entry["sha256"] for entry in drives.values()])
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])
    assert len(set(hashes[0])) == 2


def test_the_spec_tells_worlds_apart() -> None:
    base = KnownEntropyConfig()
    others = [replace(base, resample_prob=0.2), replace(base, yaw_probs=SKEWED)]
    names = {KnownEntropyWorld(config).spec.tokenizer for config in (base, *others)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": (2, 4, 4)}, "grid"),
        ({"grid": (4, 4)}, "grid"),
        ({"grid": (1, 4, 9)}, "width <= 8"),
        ({"vocab_size": 1}, "vocab_size=1"),
        ({"resample_prob": 0.0}, "infinitely"),
        ({"yaw_probs": (0.5, 0.4, 0.3)}, "sum 1"),
    ],
)
def test_bad_configs_are_refused(values: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        KnownEntropyConfig(**values)


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    world = KnownEntropyWorld()
    tokens, actions = world.sample(4, seed=0)
    with pytest.raises(BadInput, match="yaw_rate_rad_s"):
        world.optimal_nll(tokens, actions / 2 + 0.1)
    with pytest.raises(BadInput, match="steps=1"):
        world.write_store(tmp_path, num_train=1, num_test=0, steps=1, seed=0)
    world.write_store(tmp_path, num_train=1, num_test=0, steps=2, seed=0)
    with pytest.raises(BadInput, match="already"):
        world.write_store(tmp_path, num_train=1, num_test=0, steps=2, seed=0)
