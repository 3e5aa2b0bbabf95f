"""The fit finds laws that are known, and is as unsure as it should be."""

import numpy as np
import pytest

from training.errors import BadInput
from training.scaling.fit import fit_power_law, t_quantile

X = np.geomspace(1e9, 1e11, 8)
FAR = 1e12
A, B, C = 3e9, -0.4, 0.64


def law(x):
    return C + (x / A) ** B


def noisy(seed: int, noise: float = 0.005, x=X):
    return law(x) * (1 + noise * np.random.default_rng(seed).standard_normal(np.shape(x)))


def test_exact_points_give_the_law_back():
    fit = fit_power_law(X, law(X))
    assert (fit.a, fit.b, fit.c) == pytest.approx((A, B, C), rel=1e-6)
    low, high = fit.band(FAR)
    assert low < law(FAR) < high
    assert high - low < 1e-4


def test_the_unit_of_x_is_that_of_a():
    fit = fit_power_law(X / 1e6, law(X))
    assert (fit.a * 1e6, fit.b, fit.c) == pytest.approx((A, B, C), rel=1e-6)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """90 % of 60: 54 expected; fewer than 46 would happen by chance once in a thousand times."""
    inside = {"band": 0, "c": 0, "b": 0}
    for seed in range(60):
        fit = fit_power_law(X, noisy(seed))
        new = noisy(seed + 1000, x=FAR)
        for name, (low, high), truth in (
            ("band", fit.band(FAR), new),
            ("c", fit.floor_interval(), C),
            ("b", fit.exponent_interval(), B),
        ):
            inside[name] += low <= truth <= high
    assert all(46 <= count <= 59 for count in inside.values()), inside


def test_it_is_the_least_squares_optimum():
    fit = fit_power_law(X, noisy(3))
    errors = [((c + (X / a) ** b) / fit.loss - 1) for a, b, c in _around(fit.a, fit.b, fit.c)]
    best, *others = [float(e @ e) for e in errors]
    assert best == pytest.approx(fit.noise**2 * fit.degrees_of_freedom)
    assert min(others) > best


def _around(a, b, c):
    yield a, b, c
    for step in (0.999, 1.001):
        yield from ((a * step, b, c), (a, b * step, c), (a, b, c * step))


def test_the_band_widens_with_distance_noise_and_confidence():
    def width(x=FAR, noise=0.005, confidence=0.9):
        low, high = fit_power_law(X, noisy(0, noise)).band(x, confidence)
        return high - low

    assert width(X[4]) < width(1e12) < width(1e14)
    assert width(noise=0.001) < width(noise=0.01)
    assert width(confidence=0.5) < width(confidence=0.9) < width(confidence=0.99)


def test_a_band_far_inside_is_the_textbooks_prediction_interval():
    """Many points, little noise: t s sqrt(1 + small) around the law."""
    x = np.geomspace(1e9, 1e11, 60)
    fit = fit_power_law(x, noisy(1, 0.002, x))
    low, high = fit.band(1e10)
    textbook = t_quantile(0.9, 57) * fit.noise * fit.at(1e10)
    assert (high - low) / 2 == pytest.approx(textbook, rel=0.05)


def test_seeds_are_averaged_and_cannot_hide_that_the_law_is_wrong():
    bent = law(X) * (1 + 0.02 * np.sin(np.arange(8)))
    once, thrice = fit_power_law(X, bent), fit_power_law(np.tile(X, 3), np.tile(bent, 3))
    facts = [(law.a, law.b, law.c, law.noise) for law in (thrice, once)]
    assert facts[0] == pytest.approx(facts[1], rel=1e-5)
    assert thrice.band(FAR) == pytest.approx(once.band(FAR), rel=1e-4)


def test_noise_between_seeds_counts_even_where_their_means_fit():
    spread = np.array([[0.99], [1.01]])
    fit = fit_power_law(np.tile(X, 2), (law(X) * spread).ravel())
    assert (fit.b, fit.c) == pytest.approx((B, C), rel=1e-6)
    assert fit.noise == pytest.approx(0.01 * 2**0.5)


def test_points_without_curvature_leave_the_floor_open():
    x = np.geomspace(1e9, 1e10, 6)
    loss = (x / 1e10) ** -0.3 * (1 + 0.01 * np.random.default_rng(0).standard_normal(6))
    fit = fit_power_law(x, loss)
    low, high = fit.floor_interval()
    assert low == 0
    assert high > 0.1


def test_no_floor_is_below_zero():
    fit = fit_power_law(X, (X / 3e11) ** -0.2 - 0.3)
    assert fit.c == 0
    assert fit.at(1e15) > 0
    assert fit.floor_interval()[0] == 0


@pytest.mark.parametrize(
    ("confidence", "dof", "published"),
    [(0.9, 1, 6.3138), (0.9, 2, 2.9200), (0.9, 7, 1.8946), (0.95, 3, 3.1824), (0.99, 30, 2.7500)],
)
def test_students_t(confidence, dof, published):
    assert t_quantile(confidence, dof) == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "loss", "words"),
    [
        ([1, 2, 3], [3, 2, 1], "at least 4 sizes"),
        ([1, 1, 2, 2, 3], [3, 3, 2, 2, 1], "5 finished runs at 3 sizes"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "do not fall"),
        ([1, 2, 3, 4], [3, 2, np.nan, 1], "positive numbers"),
        ([0, 2, 3, 4], [3, 2, 1, 1], "positive numbers"),
    ],
)
def test_points_without_a_law_are_refused(x, loss, words):
    with pytest.raises(BadInput, match=words):
        fit_power_law(np.array(x), np.array(loss))


def test_a_confidence_of_90_is_refused():
    with pytest.raises(BadInput, match="confidence=90"):
        fit_power_law(X, law(X)).band(FAR, 90)
