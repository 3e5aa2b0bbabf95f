"""What columns of a table mean: places become a track, a wheel's degrees the steering."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

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


def track_over(
    track: Float[np.ndarray, "frame 2"],
    times_s: Float[np.ndarray, " frame"],
    picks: Int64[np.ndarray, " picked"],
) -> Float[np.ndarray, "picked 2"]:
    """The places of picked frames, on straight lines between fixes.

    Rows without a fix are NaN; so is a picked frame without a fix from it on to the next.
    """
    known = np.flatnonzero(np.isfinite(track).all(axis=1))
    picked = np.full((len(picks), 2), np.nan)
    if len(known):
        near = np.unique(np.searchsorted(picks, known, side="right") - 1)
        for axis, fixes in enumerate(track[known].T):
            picked[near, axis] = np.interp(times_s[picks[near]], times_s[known], fixes)
    return picked


def with_steering(
    file: Path,
    names: tuple[str, ...],
    actions: Float[np.ndarray, "frame action"],
    lock_deg: float | None,
    positive_is: str | None,
) -> tuple[tuple[str, ...], Float[np.ndarray, "frame action"]]:
    """`steering` that is positive to the right.

    With `lock_deg` it is the wheel's angle, in degrees, as a share of full lock; without it the
    column `steering`, turned round where its positive side is left.

    Raises:
        BadInput: there is no such column, or it is beyond full lock.
    """
    known = STEERING if lock_deg is not None else STEERING[:1]
    column = next((names.index(name) for name in known if name in names), None)
    if column is None:
        if lock_deg is not None:
            raise BadInput(f"{file}: has no steering for --lock-deg; columns: {names}")
        if positive_is is not None:
            raise BadInput(
                f"{file}: --positive-is {positive_is}: has no column 'steering'; for a wheel's "
                f"angle give --lock-deg too, else leave the flag out; columns: {names}"
            )
        return names, actions
    actions = actions.copy()
    values = actions[:, column]
    if lock_deg is not None:
        degrees = np.degrees(values) if names[column].endswith("_rad") else values
        actions[:, column] = steering_from_wheel(degrees, lock_deg, positive_is or "left")
        return (*names[:column], "steering", *names[column + 1 :]), actions
    beyond = np.flatnonzero(np.abs(values) > 1)
    if len(beyond):
        raise BadInput(
            f"{file}: row {beyond[0]}, steering is {values[beyond[0]]:g}, outside [-1, 1]; give "
            "--lock-deg, the wheel's degrees at full lock, or rescale the column"
        )
    if positive_is == "left":
        actions[:, column] = 0 - values  # without -0
    return names, actions


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
