import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from worldmodel.evaluation.intervals import bootstrap, difference, mean_over_drives


def test_the_interval_is_scipys_where_every_clip_is_a_drive_of_its_own():
    values = np.random.default_rng(1).normal(3, 2, 40)
    ours = mean_over_drives(values, [str(i) for i in range(40)])
    theirs = scipy_bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=0
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.05)
    assert ours.high == pytest.approx(theirs.high, abs=0.05)


def test_clips_of_one_drive_count_as_one():
    drives = np.random.default_rng(2).normal(0, 1, 10)
    ids = [str(i) for i in range(10)]
    once = mean_over_drives(drives, ids)
    often = mean_over_drives(drives.repeat(50), np.repeat(ids, 50).tolist())
    assert often.num_clips == 500
    assert often.num_drives == 10
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    ids = np.repeat([str(i) for i in range(30)], 5).tolist()
    for _ in range(200):
        values = rng.normal(0, 1, 30).repeat(5) + rng.normal(0, 0.5, 150)
        found = mean_over_drives(values, ids)
        held += found.low <= 0 <= found.high
    assert 0.89 <= held / 200 <= 0.99


def test_weights_and_values_that_are_not_finite():
    found = mean_over_drives([1.0, np.inf, 3.0], ["a", "b", "c"], weights=[3, 1, 1])
    assert (found.value, found.num_clips, found.num_drives) == (1.5, 2, 2)
    alone = mean_over_drives([1.0, 2.0], ["a", "a"])
    assert (alone.value, alone.low, alone.high) == (1.5, None, None)
    assert mean_over_drives([np.nan], ["a"]).value is None


def test_a_difference_is_paired_over_clips():
    rng = np.random.default_rng(4)
    ids, hard = [str(i) for i in range(20)], rng.normal(0, 10, 20)
    found = difference(hard + 0.5 + rng.normal(0, 0.1, 20), hard, ids)
    assert found.low > 0.4
    assert found.high < 0.6


def test_a_statistic_that_is_no_mean():
    values = np.random.default_rng(5).normal(0, 1, 60)
    ids = [str(i) for i in range(60)]
    found = bootstrap(lambda i: float(np.median(values[i])), ids, resamples=2000)
    theirs = scipy_bootstrap(
        (values,), np.median, method="percentile", n_resamples=5000, random_state=0
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.1)
    assert found.high == pytest.approx(theirs.high, abs=0.1)


def test_strata_keep_their_numbers_and_a_biased_statistic_stays_within_its_interval():
    rng = np.random.default_rng(5)
    values, strata = rng.normal(0, 1, 60), [0] * 20 + [1] * 40
    ids = [str(i) for i in range(60)]
    seen = set()

    def distinct(chosen):
        """Repeated clips lower it, as they raise FVD."""
        seen.add((int((chosen < 20).sum()), len(chosen)))
        return float(len(set(chosen))) + values[chosen].mean()

    plain = bootstrap(distinct, ids, strata=strata)
    centred = bootstrap(distinct, ids, strata=strata, centred=True)
    assert seen == {(20, 60)}
    assert plain.high < plain.value
    assert centred.low < centred.value < centred.high
    assert centred.high - centred.low == pytest.approx(plain.high - plain.low)
    alone = bootstrap(distinct, ["a", *ids[1:]], strata=[0, *[1] * 59])
    assert (alone.low, alone.high) == (None, None)
