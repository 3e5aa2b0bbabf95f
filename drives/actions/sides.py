"""Columns that point to a side: what becomes of an action when the road is seen in a mirror."""

from collections.abc import Sequence

from drives.actions.derived import LEFT
from drives.actions.units import OUTCOMES
from training.errors import BadInput

SIDEWAYS = {
    *LEFT,
    "steering_wheel_rad",
    "steering_wheel_rad_s",
    "steering_wheel_torque_nm",
    "yaw_rad",
    "roll_rad",
    "roll_rate_rad_s",
    "lateral_acceleration_mps2",
}
EITHER_WAY = {
    *OUTCOMES,
    "speed_mps",
    "acceleration_mps2",
    "throttle",
    "brake",
    "gas",
    "gear",
    "pitch_rad",
    "pitch_rate_rad_s",
}


def mirrored_signs(names: Sequence[str]) -> dict[str, float]:
    """The factor of every column in a mirror: -1 where it points to a side, else 1.

    Raises:
        BadInput: nobody knows whether a column points to a side.
    """
    unknown = [name for name in names if name not in SIDEWAYS | EITHER_WAY]
    if unknown:
        raise BadInput(
            f"data.encode.mirrored=true: column {unknown[0]!r} may point to a side, nobody knows; "
            f"known are {', '.join(sorted(SIDEWAYS | EITHER_WAY))}. Choose columns "
            "(data.source.actions), or set it to false"
        )
    return {name: -1.0 if name in SIDEWAYS else 1.0 for name in names}
