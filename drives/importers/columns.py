"""What columns of a table mean: places become a track, a wheel's degrees the steering."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from drives.actions.derived import steering_from_wheel
from training.errors import BadInput

STEERING = (
    *("steering", "steering_rad", "steering_angle", "steering_angle_rad", "angle"),
    *("steering_wheel_rad", "steering_wheel_angle_rad", "wheel_rad"),
)
LATITUDE = ("lat_rad", "latitude_rad", "lat", "latitude", "gps_lat", "gps_latitude")
LONGITUDE = (
    "lon_rad",
    "longitude_rad",
    "lon",
    "longitude",
    "gps_lon",
    "gps_longitude",
    "lng",
    "long",
)
PLACES = LATITUDE + LONGITUDE

# Beyond these a column has another unit than its name says.
MOST = {"speed_mps": 120.0, "yaw_rate_rad_s": 15.0, "accel_mps2": 100.0}


def places_apart(
    names: tuple[str, ...], rows: Float[np.ndarray, "frame column"]
) -> tuple[tuple[str, ...], Float[np.ndarray, "frame action"], Float[np.ndarray, "frame 2"] | None]:
    """Names and rows of the actions, and latitude and longitude in degrees; None without both."""
    places = [
        next((i for i, name in enumerate(names) if name in known), None)
        for known in (LATITUDE, LONGITUDE)
    ]
    if None in places:
        return names, rows, None
    degrees = [
        np.degrees(rows[:, i]) if names[i].endswith("_rad") else rows[:, i]
        for i in places
        if i is not None
    ]
    kept = [i for i in range(len(names)) if i not in places]
    return tuple(names[i] for i in kept), rows[:, kept], np.stack(degrees, axis=1)


def with_steering(
    file: Path,
    names: tuple[str, ...],
    actions: np.ndarray,
    lock_deg: float | None,
    positive_is: str,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Degrees of the steering wheel as a share of full lock, where `lock_deg` is given."""
    column = next((names.index(name) for name in STEERING if name in names), None)
    if column is None:
        if lock_deg is not None:
            raise BadInput(f"{file}: has no steering for --lock-deg; columns: {names}")
        return names, actions
    if lock_deg is None:
        beyond = np.flatnonzero(np.abs(actions[:, column]) > 1)
        if names[column] == "steering" and len(beyond):
            raise BadInput(
                f"{file}: row {beyond[0]}, steering is {actions[beyond[0], column]:g}, outside "
                "[-1, 1]; give --lock-deg, the wheel's degrees at full lock, or rescale the column"
            )
        return names, actions
    degrees = actions[:, column]
    if names[column].endswith("_rad"):
        degrees = np.degrees(degrees)
    actions = actions.copy()
    actions[:, column] = steering_from_wheel(degrees, lock_deg, positive_is)
    return (*names[:column], "steering", *names[column + 1 :]), actions


def check_units(file: Path, names: tuple[str, ...], actions: np.ndarray) -> None:
    """BadInput for a value that no car reaches, which has another unit than its column says."""
    for name in MOST.keys() & set(names):
        column = np.abs(actions[:, names.index(name)])
        if len(column) and column.max() > MOST[name]:
            row = int(column.argmax())
            raise BadInput(
                f"{file}: row {row}, {name} is {actions[row, names.index(name)]:g}: no car's; "
                "write the unit into the column's name, as in speed_kmh or yaw_rate_deg_s"
            )
