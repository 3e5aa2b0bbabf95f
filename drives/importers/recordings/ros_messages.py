"""What the messages of ROS say: pixels of images, and numbers of cars, in their own units.

Axes are those of REP 103: x forward, y left, z up, so yaw rates and steering angles are positive to
the left. Angular velocities of an IMU are taken as those of the car (REP 145).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from drives.actions.signals import Kind
from drives.video.images import decode_image
from training.errors import BadInput

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMAGES = (IMAGE, COMPRESSED)
FIX = "sensor_msgs/msg/NavSatFix"
# Encoding -> channels, and which of them are red, green and blue.
ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
    "8UC3": (3, (2, 1, 0)),  # OpenCV's order
}


class Quantity(NamedTuple):
    """One column that a kind of message gives."""

    name: str
    of: Callable[[Any], float]
    kind: Kind = "linear"


def _inside(part: str, quantity: Quantity) -> Quantity:
    return quantity._replace(of=lambda message: quantity.of(getattr(message, part)))


ODOMETRY = (
    Quantity("speed_mps", lambda m: m.twist.twist.linear.x),
    Quantity("yaw_rate_rad_s", lambda m: m.twist.twist.angular.z),
)
# Commands hold until the next.
TWIST = (
    Quantity("speed_mps", lambda m: m.linear.x, "hold"),
    Quantity("yaw_rate_rad_s", lambda m: m.angular.z, "hold"),
)
ACKERMANN = (
    Quantity("speed_mps", lambda m: m.speed, "hold"),
    Quantity("road_wheel_rad", lambda m: m.steering_angle, "hold"),
)
QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    "nav_msgs/msg/Odometry": ODOMETRY,
    "geometry_msgs/msg/Twist": TWIST,
    "geometry_msgs/msg/TwistStamped": tuple(_inside("twist", q) for q in TWIST),
    "ackermann_msgs/msg/AckermannDrive": ACKERMANN,
    "ackermann_msgs/msg/AckermannDriveStamped": tuple(_inside("drive", q) for q in ACKERMANN),
    "sensor_msgs/msg/Imu": (
        Quantity("yaw_rate_rad_s", lambda m: m.angular_velocity.z),
        Quantity("acceleration_mps2", lambda m: m.linear_acceleration.x),
    ),
    # Latitude and longitude become the track.
    FIX: (
        Quantity("lat_deg", lambda m: m.latitude),
        Quantity("lon_deg", lambda m: m.longitude),
    ),
}
# Bags of ROS 2 before Iron hold no definitions, and ROS itself has none of these.
ACKERMANN_DEFINITIONS = {
    "ackermann_msgs/msg/AckermannDrive": "float32 steering_angle\n"
    "float32 steering_angle_velocity\nfloat32 speed\nfloat32 acceleration\nfloat32 jerk\n",
    "ackermann_msgs/msg/AckermannDriveStamped": "std_msgs/Header header\n"
    "ackermann_msgs/AckermannDrive drive\n",
}


def stamp_s(message: Any, received_ns: int) -> float:
    """Seconds at which the message was measured; received, where its header does not say."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    said = (stamp.sec + stamp.nanosec * 1e-9) if stamp else 0.0
    return said or received_ns * 1e-9


def is_fixed(message: Any) -> bool:
    """Whether a NavSatFix holds a place: its status is not -1, its numbers are finite."""
    return message.status.status >= 0 and bool(np.isfinite([message.latitude]).all())


def pixels(message: Any, where: str) -> UInt8[np.ndarray, "height width 3"]:
    """RGB of an Image or CompressedImage.

    Raises:
        BadInput: an encoding that is no colour picture, or a size that contradicts the data.
    """
    if not hasattr(message, "encoding"):
        return decode_image(message.data.tobytes(), where)
    if message.encoding not in ENCODINGS:
        raise BadInput(
            f"{where}: images are encoded as {message.encoding!r}; republish them as one of "
            f"{', '.join(ENCODINGS)}, or compressed"
        )
    channels, order = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if not height or step < width * channels or len(message.data) != height * step:
        raise BadInput(
            f"{where}: holds {len(message.data)} bytes for {height} rows of {step} bytes, "
            f"{width} pixels each; the bag is damaged"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, : width * channels]
    return np.ascontiguousarray(rows.reshape(height, width, channels)[..., list(order)])
