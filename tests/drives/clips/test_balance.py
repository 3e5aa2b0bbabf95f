"""Balanced sampling: weight = probability^-alpha, and still a pure function of (seed, place)."""

from pathlib import Path

import numpy as np
import pytest

from drives.clips.balance import clip_weights
from drives.clips.config import BalanceConfig
from drives.drive import Drive
from training.errors import BadInput
from training.loading.order import DataOrder, Weights, sample_ids


def drive(name: str, steering: list[float], **meta: object) -> Drive:
    actions = np.array(steering, np.float32)[:, None]
    return Drive(Path(name), 10.0, "train", ("steering",), actions, {"fps": 10, **meta})


def stream(weights: Weights | None, num_samples: int, epochs: int, seed: int = 0) -> np.ndarray:
    return np.array(sample_ids(seed, 0, epochs * num_samples, num_samples, weights))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_a_cell_comes_in_proportion_to_p_to_the_1_minus_alpha(alpha):
    drives = [drive("sun", [0.0] * 800, weather="sun"), drive("rain", [0.0] * 200, weather="rain")]
    weights = clip_weights(BalanceConfig(["weather"], alpha), drives, [800, 200], 1)
    np.testing.assert_allclose(weights[[0, -1]], [0.8**-alpha, 0.2**-alpha])
    ids = stream(Weights(weights), 1000, epochs=20)
    expected = 0.2 ** (1 - alpha) / (0.2 ** (1 - alpha) + 0.8 ** (1 - alpha))
    # Systematic sampling: every epoch is within one sample of the expectation.
    shares = (ids.reshape(20, 1000) >= 800).mean(1)
    assert np.abs(shares - expected).max() <= 1e-3
    # Within a cell nothing is left out or preferred.
    times = np.bincount(ids, minlength=1000)
    assert times[:800].mean() == pytest.approx(20 * (1 - expected) / 0.8, abs=0.05)
    for cell in (times[:800], times[800:]):
        assert cell.min() >= np.floor(cell.mean()) * 0.6
        assert cell.max() <= np.ceil(cell.mean()) * 1.5


def test_alpha_zero_is_the_order_without_balancing_bit_for_bit():
    drives = [drive("a", list(np.linspace(-1, 1, 97)), weather="sun")]
    weights = clip_weights(BalanceConfig(["steering", "weather"], 0.0), drives, [97], 1)
    assert stream(Weights(weights), 97, 5).tolist() == stream(None, 97, 5).tolist()
    even = clip_weights(BalanceConfig(["steering"], 1.0, bins=3), drives[:1], [97], 1)
    assert stream(Weights(even), 97, 5).tolist() != stream(None, 97, 5).tolist()


def test_the_balanced_order_resumes_and_splits_over_ranks():
    weights = Weights(np.random.default_rng(0).random(11) + 0.1)
    whole = list(DataOrder(11, 10, 4, seed=5, weights=weights))
    rest = DataOrder(11, 10, 4, seed=5, weights=weights)
    rest.samples_consumed = 3 * 4
    assert list(rest) == whole[3:]
    assert rest.global_ids(7) == whole[7]
    ranks = [DataOrder(11, 10, 2, seed=5, rank=r, world_size=2, weights=weights) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole
    assert list(DataOrder(11, 10, 4, seed=6, weights=weights)) != whole


def test_drives_shorter_than_a_clip_have_no_weights_and_change_none():
    long, short = drive("a", [0.0, 0, 1, 1, 1], weather="sun"), drive("b", [1.0, 1.0])
    for feature in ("steering", "weather"):
        config = BalanceConfig([feature], 1.0)
        alone = clip_weights(config, [long], [3], 3)
        assert clip_weights(config, [short, long, short], [0, 3, 0], 3).tolist() == alone.tolist()


def test_features_are_joined_into_cells():
    drives = [
        drive("a", [-1, -1, 1, 1], weather="sun", place={"lat": 51.5}),
        drive("b", [-1, 1, 1, 1], weather="rain", place={"lat": 48.1}),
    ]
    joint = clip_weights(BalanceConfig(["steering", "weather"], 1.0), drives, [4, 4], 1)
    np.testing.assert_allclose(joint, 8 / np.array([2, 2, 2, 2, 1, 3, 3, 3]))
    single = clip_weights(BalanceConfig(["place.lat"], 1.0), drives, [4, 4], 1)
    np.testing.assert_allclose(single, 2)


def test_a_clip_counts_by_the_mean_of_its_frames_and_numbers_are_binned():
    turns = drive("a", [0, 0, 0, 1, 1, 1])
    two = clip_weights(BalanceConfig(["steering"], 1.0), [turns], [5], 2)
    np.testing.assert_allclose(two, 5 / np.array([2, 2, 1, 2, 2]))
    ramp = drive("a", list(np.linspace(-1, 1, 100)))
    bins = clip_weights(BalanceConfig(["steering"], 1.0, bins=4), [ramp], [100], 1)
    np.testing.assert_allclose(bins, 4)
    assert len(set(clip_weights(BalanceConfig(["steering"], 1.0, bins=3), [ramp], [100], 1))) > 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BalanceConfig(["x"], alpha=1.5), "alpha=1.5"),
        (lambda: BalanceConfig(["x"], bins=1), "bins=1"),
        (
            lambda: clip_weights(
                BalanceConfig(["fog"]), [drive("a", [0.0], weather="sun")], [1], 1
            ),
            "a/drive.json gives fog=None.*weather.*steering",
        ),
    ],
)
def test_bad_settings_are_named(make, says):
    with pytest.raises(BadInput, match=says):
        make()
    with pytest.raises(ValueError, match="positive"):
        Weights([1.0, 0.0])
