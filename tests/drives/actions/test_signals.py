"""Signals at frames: row t is the mean of the signal between frame t and frame t+1."""

import numpy as np
import pytest
from scipy.integrate import quad

from drives.actions.signals import Signal, at_frames
from training.errors import BadInput

CLOCK = np.arange(0, 3.01, 0.01)  # 100 Hz


def signal(times, values, kind="linear", name="speed_mps"):
    return Signal(name, np.asarray(times, float), np.asarray(values, float), kind)


def rows(one: Signal, frames, **options):
    return at_frames([one], np.asarray(frames, float), **options)[1][:, 0]


def test_a_line_gives_the_middle_of_each_time_between_frames():
    names, values = at_frames([signal(CLOCK, 10 * CLOCK)], np.arange(5) * 0.1)
    assert names == ("speed_mps",)
    np.testing.assert_allclose(values, [[0.5], [1.5], [2.5], [3.5], [4.5]])


def test_a_log_of_the_rows_themselves_holds_until_the_next_frame():
    frames, values = np.arange(6) * 0.05 + 1.7e9, np.array([0.3, -1, 0, 0.25, 1, -0.5])
    np.testing.assert_allclose(rows(signal(frames, values, "hold"), frames), values, rtol=1e-14)


def test_a_held_signal_counts_each_value_by_how_long_it_held():
    # 1 until 0.13 s, 3 after: frame 1 has 0.03 s of the first and 0.07 s of the second.
    found = rows(signal([0, 0.13, 0.4], [1, 3, 3], "hold"), [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(found, [1, (0.03 * 1 + 0.07 * 3) / 0.1, 3, 3])


@pytest.mark.parametrize("kind", ["linear", "hold"])
def test_uneven_clocks_agree_with_numerical_integration(kind):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 2, 60))
    one = signal(times, rng.normal(size=60), kind)
    frames = np.sort(rng.uniform(times[0], times[-1], 12))

    def value(t: float) -> float:
        if kind == "linear":
            return float(np.interp(t, times, one.values))
        return float(one.values[np.searchsorted(times, t, side="right") - 1])

    found = rows(one, frames, max_gap_s=1)
    for row, a, b in zip(found, frames, frames[1:], strict=False):
        inside = times[(times > a) & (times < b)]
        whole = quad(value, a, b, points=inside, limit=200)[0]
        assert row == pytest.approx(whole / (b - a), abs=1e-9)


def test_the_last_row_covers_one_step_as_far_as_the_signal_is_known():
    longer, shorter = signal(CLOCK, CLOCK), signal([0, 0.1, 0.2], [0, 1, 2])
    assert rows(longer, [0, 0.1, 0.2])[-1] == pytest.approx(0.25)
    assert rows(shorter, [0, 0.1, 0.2])[-1] == pytest.approx(2)
    assert rows(longer, [0.5]) == pytest.approx([0.5])


def test_a_logger_may_start_late_by_half_of_the_longest_gap():
    one = signal(CLOCK + 0.2, CLOCK)
    assert rows(one, [0, 0.1, 0.2, 0.3])[:2] == pytest.approx([0, 0])
    with pytest.raises(BadInput, match=r"a\.log: speed_mps is known from 0\.200 to 3\.200 s, and a "
                       r"frame is at 0\.000 s"):  # fmt: skip
        rows(one, [0, 0.1, 0.2], max_gap_s=0.3, where="a.log")


def test_clocks_that_never_meet_are_refused_even_without_a_longest_gap():
    with pytest.raises(BadInput, match="one clock"):
        rows(signal(CLOCK + 1.7e9, CLOCK, "hold"), [0, 0.1], max_gap_s=np.inf)


def test_a_gap_is_named_where_frames_lie_in_it_and_only_there():
    times = CLOCK[(CLOCK <= 1) | (CLOCK >= 2)]
    one = signal(times, np.ones(len(times)))
    with pytest.raises(BadInput, match=r"no sample between 1\.000 and 2\.000 s, longer than 0\.5"):
        rows(one, np.arange(0, 2.5, 0.1))
    # A row covers the time to the next frame, so no frame need lie inside of the gap itself.
    with pytest.raises(BadInput, match=r"between 1\.000 and 2\.000"):
        rows(one, [0.9, 2.1, 2.2])
    assert (rows(one, np.arange(0, 0.95, 0.1)) == 1).all()
    assert (rows(one, np.arange(0, 2.5, 0.1), max_gap_s=1.0) == 1).all()


@pytest.mark.parametrize(
    ("times", "values", "words"),
    [
        ([0, 0.1, 0.1, 0.3], [1, 1, 1, 1], r"clock of speed_mps stands still at 0\.100 s"),
        ([0, 0.2, 0.1, 0.3], [1, 1, 1, 1], r"jumps back at 0\.200 s \(next is 0\.100 s, sample 2"),
        ([0, 0.1, np.nan, 0.3], [1, 1, 1, 1], "time 2 of speed_mps is nan"),
        ([0, 0.1, 0.2, 0.3], [1, 1, np.nan, 1], r"speed_mps is nan at 0\.200 s"),
        ([0, 0.1, 0.2, 0.3], [1, 1, np.inf, 1], r"speed_mps is inf at 0\.200 s"),
        ([0, 0.1, 0.2, 0.3], [1, 1, 1], "give one number per time"),
        ([], [], "no samples"),
    ],
)
def test_a_faulty_signal_is_named(times, values, words):
    with pytest.raises(BadInput, match=rf"b\.log: .*{words}"):
        rows(signal(times, values), [0, 0.1], where="b.log")


def test_the_clock_of_the_frames_is_judged_as_well():
    with pytest.raises(BadInput, match="clock of frame stands still"):
        rows(signal(CLOCK, CLOCK), [0, 0.1, 0.1])
    with pytest.raises(BadInput, match="name of its own"):
        at_frames([signal(CLOCK, CLOCK)] * 2, np.array([0, 0.1]))
    with pytest.raises(BadInput, match="kind='cubic'"):
        rows(signal(CLOCK, CLOCK, "cubic"), [0, 0.1])
