"""Commanded against obtained: correlation, slope and error as NumPy and SciPy say."""

import numpy as np
import pytest
from scipy.stats import linregress

from worldmodel.evaluation.control.agreement import agreement, correlation_by_lag, curve


def made(gain=0.8, noise=0.1):
    rng = np.random.default_rng(0)
    commanded = rng.normal(2, 1, (6, 20))
    return gain * commanded + 0.3 + noise * rng.normal(size=(6, 20)), commanded


def test_agreement_equals_that_of_a_regression():
    read, commanded = made()
    found = agreement(read, commanded, list("aabbcc"))
    line = linregress(commanded.ravel(), read.ravel())
    assert found.correlation.value == pytest.approx(line.rvalue, abs=1e-9)
    assert found.slope.value == pytest.approx(line.slope, abs=1e-9)
    error = np.sqrt(np.mean((read - commanded) ** 2))
    assert found.error.value == pytest.approx(error, abs=1e-9)
    for estimate in (found.correlation, found.slope, found.error):
        assert estimate.low < estimate.value < estimate.high
        assert (estimate.num_clips, estimate.num_drives) == (6, 3)


def test_what_never_changes_has_no_correlation():
    read, commanded = made()
    assert agreement(read, 0 * commanded + 0.1, list("aabbcc")).correlation.value is None
    still = agreement(0 * read + 0.1, commanded, list("aabbcc"))
    assert still.correlation.value is None
    assert still.slope.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shift", [-2, 0, 1])
def test_shifted_actions_are_found(shift):
    read, _ = made()
    actions = np.roll(read, shift, axis=1)  # row t holds what belongs `shift` rows earlier
    found = correlation_by_lag(read, actions, range(-2, 3))
    assert max(found, key=lambda lag: found[lag]) == shift
    assert found[shift] == pytest.approx(1)
    with pytest.raises(ValueError, match="too few"):
        correlation_by_lag(read[:, :4], actions[:, :4], range(-2, 3))


def test_a_curve_has_one_point_per_level():
    rows = curve(np.array([[-1.0, -3.0], [2.0, 4.0]]), [-0.5, 0.5], ["a", "b"])
    assert [row["commanded"] for row in rows] == [-0.5, 0.5]
    assert [row["obtained"]["value"] for row in rows] == [-2, 3]
