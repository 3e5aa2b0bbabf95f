"""Windows of frames some steps apart: which frames, which rows, what the car did there."""

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.evaluation.attainable.windows import (
    PAST_ROWS,
    HorizonWindows,
    situations,
    statistics,
)


def drive(name: str, length: int, first: int) -> TokenDrive:
    """Frame t holds the number first + t in its cell, and so does row t in its column."""
    numbers = first + np.arange(length)
    return TokenDrive(
        name, "train", numbers.astype(np.uint16)[:, None, None], numbers.astype(np.float32)[:, None]
    )


DRIVES = [drive("a", 40, 0), drive("short", 10, 100), drive("b", 30, 200)]
UNIT = (np.zeros(1), np.ones(1))


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_a_window_holds_the_rows_that_led_to_its_last_frame_and_those_before(lag: int) -> None:
    windows = HorizonWindows(DRIVES, 3, 4, lag, *UNIT)
    assert len(windows) == (40 - 8 - 16) + (30 - 8 - 16)
    asked = windows.batch(range(len(windows)))
    firsts = [*range(8, 24), *range(208, 214)]
    for index, first in enumerate(firsts):
        assert asked.tokens[index, :, 0, 0].tolist() == [first, first + 4, first + 8]
        led = first + lag + 4  # the first of the rows to the last frame
        assert asked.row[index].tolist() == [led + 1.5]
        assert asked.before[index].tolist() == [led - 4 + 1.5]
        assert asked.past[index, :, 0].tolist() == list(range(led - PAST_ROWS, led))
    assert windows.led_by([16])[0, :, 0].tolist() == [212, 213, 214, 215]  # as recorded


def test_rows_are_in_units_of_the_train_drives() -> None:
    mean, scale = statistics(DRIVES)
    rows = np.concatenate([d.actions for d in DRIVES])
    windows = HorizonWindows(DRIVES, 2, 1, 0, mean, scale)
    asked = windows.batch([0])
    np.testing.assert_allclose(asked.row[0], (8 - rows.mean(0)) / rows.std(0), rtol=1e-6)
    np.testing.assert_allclose(asked.past[0, -1], (7 - rows.mean(0)) / rows.std(0), rtol=1e-6)
    assert statistics([drive("still", 1, 7)])[1].tolist() == [1.0]


def test_halves_share_no_window_and_spread_over_all() -> None:
    windows = HorizonWindows(DRIVES, 2, 1, 0, *UNIT)
    even, odd = windows.spread(1000, 0, 2), windows.spread(1000, 1, 2)
    assert sorted(even + odd) == list(range(len(windows)))
    assert windows.spread(3) == [0, (len(windows) - 1) // 2, len(windows) - 1]


def test_too_short_drives_are_refused() -> None:
    with pytest.raises(BadInput, match="longer than every drive; lower probe"):
        HorizonWindows(DRIVES, 3, 20, 0, *UNIT)


def test_a_window_is_in_the_first_situation_that_fits() -> None:
    names = ("steering", "brake", "speed_mps")
    rows = np.array(
        [
            [[0.9, 0.9, 0.0]] * 2,  # standing, whatever else
            [[0.0, 0.5, 9.0]] * 2,  # the brake
            [[0.9, 0.0, 9.0], [0.9, 0.0, 8.0]],  # slows down by 10 m/s2
            [[-0.9, 0.0, 9.0]] * 2,
            [[0.1, 0.0, 9.0]] * 2,
        ]
    )
    found = situations(names, rows, np.array([0.5, 1.0, 1.0]), steps_per_s=10)
    told = {name: np.flatnonzero(fits).tolist() for name, fits in found.items()}
    assert told == {"standing": [0], "braking": [1, 2], "curve": [3], "straight": [4]}
    assert set(situations(("yaw_rate_rad_s",), rows[..., :1], np.ones(1), 10)) == {
        "curve",
        "straight",
    }
    assert situations(("throttle",), rows[..., :1], np.ones(1), 10) == {}
