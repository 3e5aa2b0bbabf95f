"""Bags as ROS records them, written by rosbags: a camera at 10 Hz, and topics of a car."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from drives.importers.recordings.ros_messages import ACKERMANN_DEFINITIONS

NS = 10**9
START_S = 1_700_000_000
KINDS = ("bag", "db3", "mcap", "folder")


class Types:
    """Constructors of messages, of ROS 1 or 2."""

    def __init__(self, is_ros1: bool) -> None:
        self.store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)
        for name, text in ACKERMANN_DEFINITIONS.items():
            self.store.register(get_types_from_msg(text, name))
        self.is_ros1 = is_ros1

    def make(self, kind: str, **values: Any) -> Any:
        return self.store.types[kind](**values)

    def header(self, at_s: float) -> Any:
        at_ns = round(at_s * NS)
        stamp = self.make("builtin_interfaces/msg/Time", sec=at_ns // NS, nanosec=at_ns % NS)
        seq = {"seq": 0} if self.is_ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id="", **seq)

    def image(self, at_s: float, grey: int, encoding: str = "rgb8") -> Any:
        channels = {"mono8": 1, "bgra8": 4}.get(encoding, 3)
        rows = np.zeros((16, 24 * channels + 8), np.uint8)  # padded, as some cameras do
        pixel = {3: (grey, 10, 250), 4: (250, 10, grey, 255), 1: (grey,)}[channels]
        rows[:, : 24 * channels] = np.tile(np.array(pixel, np.uint8), 24)
        step = rows.shape[1]
        size = {"height": 16, "width": 24, "step": step, "is_bigendian": 0}
        data = rows.reshape(-1)
        header = self.header(at_s)
        return self.make(
            "sensor_msgs/msg/Image", header=header, encoding=encoding, data=data, **size
        )

    def compressed(self, at_s: float, grey: int) -> Any:
        file = io.BytesIO()
        Image.fromarray(np.full((16, 24, 3), grey, np.uint8)).save(file, "PNG")
        data = np.frombuffer(file.getvalue(), np.uint8)
        header = self.header(at_s)
        return self.make("sensor_msgs/msg/CompressedImage", header=header, format="png", data=data)

    def vector(self, x: float = 0.0, z: float = 0.0) -> Any:
        return self.make("geometry_msgs/msg/Vector3", x=x, y=0.0, z=z)

    def twist(self, speed: float, turn: float) -> Any:
        linear, angular = self.vector(x=speed), self.vector(z=turn)
        return self.make("geometry_msgs/msg/Twist", linear=linear, angular=angular)

    def odometry(self, at_s: float, speed: float, turn: float) -> Any:
        point = self.make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
        turned = self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self.make("geometry_msgs/msg/Pose", position=point, orientation=turned)
        none = np.zeros(36)
        return self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(at_s),
            child_frame_id="base_link",
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=none),
            twist=self.make(
                "geometry_msgs/msg/TwistWithCovariance",
                twist=self.twist(speed, turn),
                covariance=none,
            ),
        )

    def imu(self, at_s: float, turn: float) -> Any:
        turned = self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        none = np.zeros(9)
        return self.make(
            "sensor_msgs/msg/Imu",
            header=self.header(at_s),
            orientation=turned,
            orientation_covariance=none,
            angular_velocity=self.vector(z=turn),
            angular_velocity_covariance=none,
            linear_acceleration=self.vector(x=1.5, z=9.8),
            linear_acceleration_covariance=none,
        )

    def fix(self, at_s: float, lat: float, lon: float, status: int = 0) -> Any:
        return self.make(
            "sensor_msgs/msg/NavSatFix",
            header=self.header(at_s),
            status=self.make("sensor_msgs/msg/NavSatStatus", status=status, service=1),
            latitude=lat,
            longitude=lon,
            altitude=0.0,
            position_covariance=np.zeros(9),
            position_covariance_type=0,
        )

    def ackermann(self, speed: float, angle: float) -> Any:
        rest = {"steering_angle_velocity": 0.0, "acceleration": 0.0, "jerk": 0.0}
        return self.make(
            "ackermann_msgs/msg/AckermannDrive", steering_angle=angle, speed=speed, **rest
        )


Message = tuple[str, float, Any]  # topic, seconds received, message
Make = Callable[[Types], Sequence[Message]]


def camera(types: Types, num_frames: int = 40, encoding: str = "rgb8") -> list[Message]:
    """/camera: frame i is measured at i / 10 s, received a little later, red is 2 i."""
    times = [START_S + i / 10 for i in range(num_frames)]
    return [("/camera", t + 0.03, types.image(t, 2 * i, encoding)) for i, t in enumerate(times)]


def odometry(types: Types, seconds: float = 4.0) -> list[Message]:
    """/odom at 50 Hz: 2 m/s, turning left at 0.5 rad/s."""
    times = START_S + np.arange(0, seconds, 0.02)
    return [("/odom", t + 0.001, types.odometry(t, 2.0, 0.5)) for t in times.tolist()]


def write_bag(folder: Path, kind: str, make: Make, name: str = "drive") -> Path:
    """A bag of one of `KINDS`; the file or folder to give."""
    types = Types(kind == "bag")
    messages = sorted(make(types), key=lambda message: message[1])
    path = folder / (f"{name}.bag" if kind == "bag" else name)
    folder.mkdir(parents=True, exist_ok=True)
    plugin = StoragePlugin.SQLITE3 if kind == "db3" else StoragePlugin.MCAP
    writer = Writer1(path) if kind == "bag" else Writer2(path, version=9, storage_plugin=plugin)
    with writer:
        connections: dict[str, Any] = {}
        for topic, at_s, message in messages:
            msgtype = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=types.store)
            serialize = types.store.serialize_ros1 if kind == "bag" else types.store.serialize_cdr
            writer.write(connections[topic], round(at_s * NS), serialize(message, msgtype))
    return next(path.glob(f"*.{kind}")) if kind in ("db3", "mcap") else path
