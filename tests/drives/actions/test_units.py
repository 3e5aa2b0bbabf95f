"""Names as people write them, clocks, and SI units."""

import numpy as np
import pytest

from drives.actions.units import (
    is_action,
    is_index,
    is_time,
    normal_name,
    normalised,
    to_seconds,
    to_si,
)
from training.errors import BadInput


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("Throttle", "throttle"),
        (" throttle", "throttle"),
        ("\ufeffsteering", "steering"),
        ("Speed (km/h)", "speed_kmh"),
        ("speed [mph]", "speed_mph"),
        ("speed_kph", "speed_kph"),
        ("Vehicle Speed m/s", "vehicle_speed_mps"),
        ("speed_m/s", "speed_mps"),
        ("yaw rate (deg/s)", "yaw_rate_deg_s"),
        ("Steering Wheel Angle (\N{DEGREE SIGN})", "steering_wheel_angle_deg"),
        ("steeringAngle", "steering_angle"),
        ("brake (%)", "brake_percent"),
        ("speed_mps [m/s]", "speed_mps"),
        ("RPM", "rpm"),
        ("user/angle", "user_angle"),
        ("Timestamp [ns]", "timestamp_ns"),
        ("accel (furlong)", "accel_furlong"),
        ("pose_0", "pose_0"),
        ("yaw_rate_rad_s", "yaw_rate_rad_s"),
    ],
)
def test_a_name_as_people_write_it(written, ours):
    assert normal_name(written) == ours == normal_name(ours)


def test_indices_and_clocks_are_never_actions():
    for name in ("", "Unnamed: 0", "index", "frame", "Frame Number", "frame_idx", "frameIndex"):
        assert is_index(name), name
    for name in ("time", "time_s", "timestamp", "timestamp_ns", "Time (s)", "unix_time", "Datetime",
                 "frame_time", "t", "timestamp [ms]"):  # fmt: skip
        assert is_time(name), name
    for name in ("steering", "throttle", "time_to_collision_s", "speed_mps", "pose_0", "torque"):
        assert is_action(name), name


@pytest.mark.parametrize("unit", [1, 1e3, 1e6, 1e9])
def test_seconds_since_1970_in_any_unit(unit):
    times = 1695300000.0 + np.arange(5) / 8
    np.testing.assert_allclose(to_seconds("timestamp", times * unit), times, rtol=0, atol=1e-5)


def test_the_name_says_the_unit_of_a_clock():
    np.testing.assert_allclose(to_seconds("time (ms)", np.array([0.0, 50])), [0, 0.05])
    np.testing.assert_allclose(to_seconds("time_s", np.array([0.0, 2e12])), [0, 2e12])


def test_units_become_si():
    names = ("speed_mph", "speed2_kmh", "speed3_kph", "yaw_rate_deg_s", "wheel_deg",
             "throttle_percent", "steering", "distance_km")  # fmt: skip
    new, values = to_si("a.csv", names, np.array([[10.0, 36, 72, 180, 90, 50, 0.25, 2]]))
    assert new == ("speed_mps", "speed2_mps", "speed3_mps", "yaw_rate_rad_s", "wheel_rad",
                   "throttle", "steering", "distance_m")  # fmt: skip
    np.testing.assert_allclose(values, [[4.4704, 10, 20, np.pi, np.pi / 2, 0.5, 0.25, 2000]])


def test_two_spellings_of_one_column_are_named():
    with pytest.raises(BadInput, match=r"a\.csv: columns 'Throttle', 'throttle' are all 'thr"):
        normalised("a.csv", ["Throttle", "steering", "throttle"])
    assert normalised("a.csv", ["", "Steering", ""]) == ("", "steering", "")
    with pytest.raises(BadInput, match=r"a\.csv: column 'speed_mph' is there twice as 'speed_mps'"):
        to_si("a.csv", ["speed_mph", "speed_kmh"], np.ones((1, 2)))
