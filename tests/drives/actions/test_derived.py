"""Derived columns against figures by hand, SciPy, and a real minute of comma2k19."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from drives.actions import derived
from drives.actions.signals import Signal, at_frames
from training.errors import BadInput

# A left-hand circle of radius 20 m at 5 m/s: yaw rate 0.25 rad/s, curvature 0.05 / m.
TIMES = np.arange(0, 30, 0.05)
ANGLE = 0.25 * TIMES
CIRCLE = 20 * np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=-1)
HEADING = ANGLE + np.pi / 2


def values_at_frames(*signals: Signal) -> list[np.ndarray]:
    return list(at_frames(signals, TIMES[::2])[1].T)


def test_a_circle_has_its_speed_its_yaw_rate_and_its_curvature():
    wrapped = (HEADING + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(np.diff(wrapped)).max() > 6, "it has to wrap for this test"
    speed, yaw_rate = values_at_frames(
        derived.speed_from_positions(TIMES, CIRCLE),
        derived.yaw_rate_from_headings(TIMES, wrapped),
    )
    np.testing.assert_allclose(speed, 5, rtol=1e-4)
    np.testing.assert_allclose(yaw_rate, 0.25, rtol=1e-9)
    np.testing.assert_allclose(derived.curvature_per_m(yaw_rate, speed), 0.05, rtol=1e-4)
    velocities = 5 * np.stack([np.cos(HEADING), np.sin(HEADING), 0 * HEADING], axis=-1)
    (speed,) = values_at_frames(derived.speed_from_velocities(TIMES, velocities))
    np.testing.assert_allclose(speed, 5)


def test_a_compass_course_to_the_right_is_a_negative_yaw_rate():
    course_deg = np.array([350.0, 355, 0, 5])  # northwards, turning right
    signal = derived.yaw_rate_from_headings(np.arange(4.0), -np.radians(course_deg))
    np.testing.assert_allclose(signal.values, -np.radians(5))


@pytest.mark.parametrize(("axes", "up"), [("flu", (0, 0, 1)), ("frd", (0, 0, -1))])
def test_yaw_rate_of_orientations_is_about_the_cars_own_up_axis(axes, up):
    world = Rotation.from_rotvec([0.3, -1.2, 2.0])  # any axes, as the Earth's
    banked = Rotation.from_euler("x", 20, degrees=True)
    cars = world * Rotation.from_euler("z", HEADING[:, None]) * banked
    if axes == "frd":
        cars = cars * Rotation.from_euler("x", 180, degrees=True)
    wxyz = np.roll(cars.as_quat(), 1, axis=-1)
    wxyz[::3] *= -1  # the same rotations
    signal = derived.yaw_rate_from_orientations(TIMES, wxyz, up)
    # On a bank of 20 degrees the car's own gyroscope sees cos(20) of the turn.
    np.testing.assert_allclose(signal.values, 0.25 * np.cos(np.radians(20)), rtol=1e-9)


def test_orientations_that_are_no_rotations_are_refused():
    with pytest.raises(BadInput, match="orientation 1 has length 2"):
        derived.yaw_rate_from_orientations(np.arange(2.0), np.array([[1.0, 0, 0, 0], [2, 0, 0, 0]]))
    with pytest.raises(BadInput, match="yaw_rate_rad_s: 1 times for 1 samples"):
        derived.yaw_rate_from_headings(np.zeros(1), np.zeros(1))


def test_curvature_is_zero_where_the_car_stands():
    found = derived.curvature_per_m(
        np.array([0.1, 0.1, -0.2, 0.1]), np.array([0.0, 0.99, 2, -2]), min_speed_mps=1
    )
    np.testing.assert_allclose(found, [0, 0, -0.1, -0.05])


def test_a_steering_wheel_by_hand():
    # 90 degrees at a ratio of 15 are 6 degrees; tan(6 deg) / 2.7 m = 0.03893 / m.
    angle = derived.road_wheel_rad(np.array([90.0, 0, -90]), ratio=15)
    np.testing.assert_allclose(angle, np.radians([6, 0, -6]))
    curvature = derived.bicycle_curvature_per_m(angle, wheelbase_m=2.7)
    np.testing.assert_allclose(curvature, [0.0389274, 0, -0.0389274], atol=1e-7)
    wheel = np.array([90.0, -450])
    np.testing.assert_allclose(derived.steering_from_wheel(wheel, 450), [-0.2, 1])
    np.testing.assert_allclose(derived.steering_from_wheel(wheel, 450, "right"), [0.2, -1])
    with pytest.raises(BadInput, match="-450 degrees in row 1, beyond full lock at 300"):
        derived.steering_from_wheel(wheel, 300)
    with pytest.raises(BadInput, match="ratio=0"):
        derived.road_wheel_rad(wheel, 0)


def test_places_on_the_earth_by_the_constants_of_wgs_84():
    # Semi-axes 6378137 and 6356752.3142 m; a degree of the equator is 111319.49 m.
    ecef = derived.geodetic_to_ecef(np.array([0.0, 90, 0]), np.array([0.0, 0, 90]), 0.0)
    expected = [[6378137, 0, 0], [0, 0, 6356752.3142], [0, 6378137, 0]]
    np.testing.assert_allclose(ecef, expected, atol=1e-3)
    local = derived.geodetic_to_local(np.array([0, 0, 1e-5]), np.array([0, 1e-5, 0.0]), 0.0)
    # A meridian's radius at the equator is a (1 - e^2): a degree of it is 110574.3 m.
    np.testing.assert_allclose(local, [[0, 0, 0], [1.1131949, 0, 0], [0, 1.105743, 0]], atol=1e-5)


def test_places_come_back_and_vectors_turn_as_places_do():
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-89, 89, 50), rng.uniform(-180, 180, 50)
    there = derived.geodetic_to_ecef(lat, lon, altitude := rng.uniform(-100, 5000, 50))
    back = derived.ecef_to_geodetic(there)
    np.testing.assert_allclose(back[:, :2], np.stack([lat, lon], -1), atol=1e-9)
    np.testing.assert_allclose(back[:, 2], altitude, atol=1e-5)
    local = derived.ecef_to_local(there)
    np.testing.assert_allclose(derived.turned_to_local(there - there[0], there[0]), local)
    lengths = np.linalg.norm(there - there[0], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(local, axis=-1), lengths)


@pytest.fixture
def minute(shared: Path) -> dict[str, np.ndarray]:
    found = sorted((shared / "data/comma2k19").glob("*/*/40"))
    if not found:
        pytest.skip(f"{shared}/data/comma2k19 is absent")
    files = [path for path in found[0].rglob("*") if path.is_file()]
    return {str(path.relative_to(found[0])): np.load(path).squeeze() for path in files}


def test_a_real_minute_agrees_with_itself(minute):
    """comma2k19: poses of the Global Navigation Satellite System and the car's own bus."""
    times, positions, velocities, turned = (
        minute[f"global_pose/frame_{name}"]
        for name in ("times", "positions", "velocities", "orientations")
    )
    bus = {
        name: (minute[f"processed_log/CAN/{name}/t"], minute[f"processed_log/CAN/{name}/value"])
        for name in ("speed", "steering_angle")
    }
    _, rows = at_frames(
        [
            replace(derived.speed_from_positions(times, positions), name="of_positions"),
            derived.speed_from_velocities(times, velocities),
            Signal("of_bus", *bus["speed"]),
            derived.yaw_rate_from_orientations(times, turned, up=(0, 0, -1)),
            Signal("wheel_deg", *bus["steering_angle"]),
        ],
        times,
    )
    of_positions, speed, of_bus, yaw_rate, wheel_deg = rows.T
    assert 7 < speed.min() < speed.max() < 21
    # A speedometer is off by its tires: by 0.8 % here, and 0.3 m/s at most.
    assert np.abs(of_positions - speed)[:-1].max() < 0.05
    assert np.abs(speed - of_bus).max() < 0.3
    assert np.median(speed / of_bus) == pytest.approx(1.008, abs=2e-3)
    # A Civic: 15.3 and 2.7 m. Its tires slip, so it turns less than the bicycle at 18 m/s.
    bicycle = derived.bicycle_curvature_per_m(derived.road_wheel_rad(wheel_deg, 15.3), 2.7)
    curvature = derived.curvature_per_m(yaw_rate, speed)
    second = np.ones(20) / 20
    a, b = np.convolve(bicycle, second, "valid"), np.convolve(curvature, second, "valid")
    assert np.corrcoef(a, b)[0, 1] > 0.85
    assert 0.4 < np.polyfit(a, b, 1)[0] < 1.0
    local = derived.ecef_to_local(positions)
    gnss = minute["processed_log/GNSS/live_gnss_ublox/value"]
    east_north = derived.geodetic_to_local(gnss[:, 0], gnss[:, 1], gnss[:, 2])
    assert np.linalg.norm(local[-1, :2] - east_north[-1, :2]) < 10
