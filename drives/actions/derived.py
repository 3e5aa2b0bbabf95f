"""Speed, yaw rate, curvature and places from what loggers hold; signs as everywhere in dashcast.

Yaw rate and curvature are positive to the LEFT (counterclockwise from above, ISO 8855); `steering`
is positive to the RIGHT.
"""

import numpy as np
from jaxtyping import Float

from drives.actions.signals import Signal
from training.errors import BadInput
from training.ranges import positive

# Sign of a left turn in each column that steers.
LEFT = {"yaw_rate_rad_s": 1.0, "curvature_per_m": 1.0, "steering": -1.0}

Samples = Float[np.ndarray, " sample"]
Vectors = Float[np.ndarray, "sample axis"]
Places = Float[np.ndarray, "sample 3"]

# World Geodetic System 1984 (NIMA TR8350.2, table 3.1): semi-major axis in metres, flattening.
AXIS_M, FLATTENING = 6378137.0, 1 / 298.257223563
ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)


def speed_from_positions(times_s: Samples, positions_m: Vectors) -> Signal:
    """`speed_mps`: length of the way to the next position over the time to it."""
    way_m = np.linalg.norm(np.diff(positions_m, axis=0), axis=-1)
    return _per_second("speed_mps", times_s, way_m)


def speed_from_velocities(times_s: Samples, velocities_mps: Vectors) -> Signal:
    """`speed_mps`: the length of the velocity, in any frame of reference."""
    return Signal("speed_mps", times_s, np.linalg.norm(velocities_mps, axis=-1))


def yaw_rate_from_headings(times_s: Samples, heading_rad: Samples) -> Signal:
    """`yaw_rate_rad_s` of headings counterclockwise from above, wrapped or not.

    Compass courses run clockwise: give `-np.radians(course_deg)`.
    """
    turned = np.diff(np.unwrap(heading_rad))
    return _per_second("yaw_rate_rad_s", times_s, turned)


def yaw_rate_from_orientations(
    times_s: Samples,
    orientations_wxyz: Float[np.ndarray, "sample 4"],
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    where: str = "",
) -> Signal:
    """`yaw_rate_rad_s`: rotation from each orientation to the next about the car's own up axis.

    Args:
        orientations_wxyz: quaternions that rotate from the car's axes to those of the world.
        up: the up axis in the car's axes: (0, 0, 1) for forward-left-up (ROS, nuScenes),
            (0, 0, -1) for forward-right-down (comma, aviation).
        where: the file, for messages.
    """
    from scipy.spatial.transform import Rotation  # half a second; only importers come here

    lengths = np.linalg.norm(orientations_wxyz, axis=-1)
    if not (np.abs(lengths - 1) < 1e-2).all():
        bad = int(np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))[0])
        raise BadInput(
            f"{where}{': ' * bool(where)}orientation {bad} has length {lengths[bad]:g}; "
            "quaternions (w, x, y, z) have length 1"
        )
    cars = Rotation.from_quat(np.roll(orientations_wxyz, -1, axis=-1))  # SciPy's order is xyzw
    turned = (cars[:-1].inv() * cars[1:]).as_rotvec() @ np.asarray(up, np.float64)
    return _per_second("yaw_rate_rad_s", times_s, turned)


def _per_second(name: str, times_s: Samples, changes: Samples) -> Signal:
    """Changes from sample to sample as rates; so the mean over frames is the exact change."""
    if len(changes) != len(times_s) - 1 or not len(changes):
        raise BadInput(f"{name}: {len(times_s)} times for {len(changes) + 1} samples; give two up")
    with np.errstate(divide="ignore", invalid="ignore"):  # a clock that stands still is refused
        rates = changes / np.diff(times_s)
    return Signal(name, times_s, np.append(rates, rates[-1]), "hold")


def curvature_per_m(
    yaw_rate_rad_s: Samples, speed_mps: Samples, min_speed_mps: float = 1.0
) -> Samples:
    """Yaw rate / speed; 0 below `min_speed_mps`, where the ratio is noise over nothing.

    Give the rows of `at_frames`: the ratio of two means is the angle over the way.
    """
    positive(min_speed_mps=min_speed_mps)
    moving = np.abs(speed_mps) >= min_speed_mps
    return np.where(moving, yaw_rate_rad_s / np.where(moving, speed_mps, 1.0), 0.0)


def road_wheel_rad(steering_wheel_deg: Samples, ratio: float) -> Samples:
    """Angle of the front wheels; `ratio` is that of the steering wheel to it (about 15)."""
    positive(ratio=ratio)
    return np.radians(steering_wheel_deg) / ratio


def bicycle_curvature_per_m(wheel_rad: Samples, wheelbase_m: float) -> Samples:
    """tan(angle of the front wheels) / wheelbase: the kinematic bicycle, without slip.

    Rajamani, Vehicle Dynamics and Control, 2nd ed., section 2.2. Same sign as the angle.
    """
    positive(wheelbase_m=wheelbase_m)
    return np.tan(wheel_rad) / wheelbase_m


def steering_from_wheel(
    steering_wheel_deg: Samples, lock_deg: float, positive_is: str = "left"
) -> Samples:
    """`steering` in [-1, 1], positive to the right, from the angle of the steering wheel.

    Args:
        lock_deg: the angle at full lock (about 450).
        positive_is: the side of positive angles: "left" (ISO 8855, comma) or "right".

    Raises:
        BadInput: an angle beyond full lock.
    """
    positive(lock_deg=lock_deg)
    beyond = np.flatnonzero(np.abs(steering_wheel_deg) > lock_deg)
    if len(beyond):
        raise BadInput(
            f"steering wheel is at {steering_wheel_deg[beyond[0]]:g} degrees in row {beyond[0]}, "
            f"beyond full lock at {lock_deg:g}; give the car's lock_deg"
        )
    signs = {"left": -1.0, "right": 1.0}
    if positive_is not in signs:
        raise BadInput(f"positive_is={positive_is!r}: choose one of left, right")
    return steering_wheel_deg * signs[positive_is] / lock_deg


def geodetic_to_ecef(
    latitude_deg: Samples, longitude_deg: Samples, altitude_m: Samples | float = 0.0
) -> Places:
    """Earth-centred, earth-fixed metres; altitude above the ellipsoid (WGS 84)."""
    lat, lon = np.radians(latitude_deg), np.radians(longitude_deg)
    across = AXIS_M / np.sqrt(1 - ECCENTRICITY_2 * np.sin(lat) ** 2)
    out = (across + altitude_m) * np.cos(lat)
    up = (across * (1 - ECCENTRICITY_2) + altitude_m) * np.sin(lat)
    return np.stack([out * np.cos(lon), out * np.sin(lon), up], axis=-1)


def ecef_to_geodetic(positions_m: Places) -> Places:
    """Latitude and longitude in degrees, altitude in metres (WGS 84).

    Bowring's method (Survey Review 23, 1976): within a nanodegree at the height of a car.
    """
    x, y, z = np.moveaxis(np.asarray(positions_m, np.float64), -1, 0)
    out, short = np.hypot(x, y), AXIS_M * (1 - FLATTENING)
    angle = np.arctan2(z * AXIS_M, out * short)
    second = ECCENTRICITY_2 / (1 - ECCENTRICITY_2)
    lat = np.arctan2(
        z + second * short * np.sin(angle) ** 3, out - ECCENTRICITY_2 * AXIS_M * np.cos(angle) ** 3
    )
    across = AXIS_M / np.sqrt(1 - ECCENTRICITY_2 * np.sin(lat) ** 2)
    altitude = out * np.cos(lat) + z * np.sin(lat) - AXIS_M**2 / across
    return np.stack([np.degrees(lat), np.degrees(np.arctan2(y, x)), altitude], axis=-1)


def ecef_to_local(positions_m: Places, origin_m: Float[np.ndarray, "3"] | None = None) -> Places:
    """East, north, up in metres from `origin_m` (ECEF; None: the first position)."""
    origin = np.asarray(positions_m[0] if origin_m is None else origin_m, np.float64)
    return turned_to_local(np.asarray(positions_m) - origin, origin)


def turned_to_local(vectors: Places, origin_m: Float[np.ndarray, "3"]) -> Places:
    """Vectors in ECEF axes (velocities) in the axes east, north, up of a place in ECEF."""
    lat, lon, _ = ecef_to_geodetic(origin_m)
    (sin_lat, cos_lat), (sin_lon, cos_lon) = (
        (np.sin(a), np.cos(a)) for a in np.radians([lat, lon])
    )
    east = np.array([-sin_lon, cos_lon, 0])
    north = np.array([-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat])
    up = np.array([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat])
    return vectors @ np.stack([east, north, up], axis=-1)


def geodetic_to_local(
    latitude_deg: Samples, longitude_deg: Samples, altitude_m: Samples | float = 0.0
) -> Places:
    """East, north, up in metres from the first place."""
    return ecef_to_local(geodetic_to_ecef(latitude_deg, longitude_deg, altitude_m))
