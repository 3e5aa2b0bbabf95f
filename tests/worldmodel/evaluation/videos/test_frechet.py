"""The Frechet distance of subsets, against SciPy's matrix square root and by hand."""

import numpy as np
import pytest
import scipy.linalg

from worldmodel.evaluation.videos.frechet import (
    Frechet,
    VideoFeatures,
    at_count,
    curve,
    estimate,
    halves,
)


def scipy_distance(a, b):
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)


def vectors(rng, count, dim, shift=0.0):
    mix = np.random.default_rng(9).normal(size=(dim, dim))
    return rng.normal(size=(count, dim)) @ mix + shift


def features(rng, count, dim=12, shift=0.0, videos=None):
    names = [f"v{i % (videos or count)}" for i in range(count)]
    return VideoFeatures(vectors(rng, count, dim, shift), names)


@pytest.mark.parametrize(("count", "other"), [(200, 150), (20, 14), (200, 14)])
def test_it_is_scipys_with_more_and_with_fewer_vectors_than_dimensions(count, other):
    rng = np.random.default_rng(0)
    a, b = vectors(rng, count, 16, shift=100.0), vectors(rng, other, 16, shift=100.5)
    assert Frechet(a, b)() == pytest.approx(scipy_distance(a, b), rel=1e-5)
    assert Frechet(a, a)() == pytest.approx(0, abs=1e-6)


def test_it_is_zero_of_the_same_few_vectors_and_the_shift_squared_of_moved_ones():
    a = vectors(np.random.default_rng(1), 10, 50)
    assert Frechet(a, a)() == pytest.approx(0, abs=1e-8)
    assert Frechet(a, a + 3.0)() == pytest.approx(50 * 9)


def test_subsets_with_repetition_are_those_of_the_vectors_themselves():
    rng = np.random.default_rng(2)
    a, b = vectors(rng, 30, 40), vectors(rng, 25, 40, shift=1.0)
    i, j = rng.integers(0, 30, 30), rng.integers(0, 25, 20)
    assert Frechet(a, b)(i, j) == pytest.approx(Frechet(a[i], b[j])(), rel=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        Frechet(a, b)(i[:1], j)


def test_the_interval_surrounds_the_value_and_narrows_with_videos():
    rng = np.random.default_rng(3)
    widths = []
    for count in (20, 320):
        found = estimate(features(rng, count), features(rng, count, shift=1.0))
        assert found.low < found.value < found.high
        assert (found.num_clips, found.num_drives) == (2 * count, 2 * count)
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2
    alone = estimate(features(rng, 20, videos=1), features(rng, 20))
    assert (alone.low, alone.high) == (None, None)


def test_the_curve_falls_to_the_truth():
    rng = np.random.default_rng(4)
    shift = 0.5
    found = curve(features(rng, 400), features(rng, 400, shift=shift))
    assert found["num_clips"] == sorted(found["num_clips"])
    assert found["num_clips"][-1] == 400
    truth = 12 * shift**2
    errors = np.abs(np.array(found["value"]) - truth)
    assert (np.diff(errors) < 0).all()
    assert abs(found["limit"] - truth) < errors[-1]


def test_subsets_of_all_are_the_whole():
    rng = np.random.default_rng(5)
    a, b = features(rng, 30), features(rng, 30, shift=1.0)
    assert at_count(a, b, 30) == pytest.approx(Frechet(a.vectors, b.vectors)())


def test_halves_share_no_video():
    first, second = halves(features(np.random.default_rng(6), 40, videos=8))
    assert not set(first.videos) & set(second.videos)
    assert len(first) == len(second) == 20
    first, second = halves(features(np.random.default_rng(6), 41, videos=1))
    assert (len(first), len(second)) == (20, 21)
