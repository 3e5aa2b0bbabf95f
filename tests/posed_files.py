"""nuScenes and nuPlan in their schema: a car drives on a circle, images say their number."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from numbered_frames import numbered
from PIL import Image

SPEED, YAW_RATE = 8.0, 0.4  # m/s, rad/s to the left
START_US = 1_532_402_927_000_000


def pose(time_s: float) -> tuple[list[float], list[float]]:
    """Position and orientation (w, x, y, z) on the circle."""
    angle, radius = YAW_RATE * time_s, SPEED / YAW_RATE
    where = [600 + radius * np.sin(angle), 1600 - radius * np.cos(angle), 0.0]
    return where, [float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2))]


def table(root: Path, name: str, entries: list[dict[str, Any]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.json").write_text(json.dumps(entries, indent=0))


def nuscenes(root: Path, num_scenes: int = 2, count: int = 48) -> Path:
    """Steps of 0.1 and 0.05 s, as the camera's are; every sixth image is a sample."""
    tables = root / "v1.0-mini"
    channels = ("CAM_FRONT", "CAM_BACK", "LIDAR_TOP")
    table(tables, "sensor", [{"token": c, "channel": c, "modality": "camera"} for c in channels])
    placed = [
        {"token": f"{c}-on-car", "sensor_token": c, "translation": [0, 0, 0]} for c in channels
    ]
    table(tables, "calibrated_sensor", placed)
    scenes, samples, data, poses = [], [], [], []
    for scene in range(num_scenes):
        name = f"scene-{scene + 61:04d}"
        about = "Parked truck, construction, turn left" if scene == 0 else ""
        scenes.append({"token": name, "name": name, "description": about, "log_token": "log"})
        steps = np.tile([0.1, 0.05, 0.1], count)[: count - 1]
        times = scene * 1000 + np.append(0, np.cumsum(steps))
        for channel in channels:
            for index, time_s in enumerate(times):
                sample = f"{name}-{index // 6}"
                token, stamp = f"{name}-{channel}-{index}", START_US + round(time_s * 1e6)
                kind = "sweeps" if index % 6 else "samples"
                file = f"{kind}/{channel}/n008__{channel}__{stamp}.jpg"
                if channel == "CAM_FRONT":
                    if index % 6 == 0:
                        samples.append({"token": sample, "scene_token": name, "timestamp": stamp})
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(numbered(1, first=index)[0]).save(root / file, quality=95)
                where, turned = pose(time_s)
                poses.append(
                    {"token": token, "timestamp": stamp, "rotation": turned, "translation": where}
                )
                data.append(
                    {
                        "token": token,
                        "sample_token": sample,
                        "ego_pose_token": token,
                        "calibrated_sensor_token": f"{channel}-on-car",
                        "filename": file,
                        "timestamp": stamp,
                        "is_key_frame": index % 6 == 0,
                    }
                )
    for name, entries in {"scene": scenes, "sample": samples, "ego_pose": poses}.items():
        table(tables, name, entries)
    table(tables, "sample_data", data[::-1])  # no table is in the order of time
    return root


SCHEMA = """
CREATE TABLE camera (token BLOB NOT NULL, log_token BLOB NOT NULL, channel VARCHAR(64),
  model VARCHAR(64), translation BLOB, rotation BLOB, intrinsic BLOB, distortion BLOB,
  width INTEGER, height INTEGER, PRIMARY KEY (token));
CREATE TABLE image (token BLOB NOT NULL, next_token BLOB, prev_token BLOB,
  ego_pose_token BLOB NOT NULL, camera_token BLOB NOT NULL, filename_jpg VARCHAR(128),
  timestamp INTEGER, PRIMARY KEY (token));
CREATE TABLE ego_pose (token BLOB NOT NULL, timestamp INTEGER, x FLOAT, y FLOAT, z FLOAT,
  qw FLOAT, qx FLOAT, qy FLOAT, qz FLOAT, vx FLOAT, vy FLOAT, vz FLOAT, epsg INTEGER,
  log_token BLOB NOT NULL, PRIMARY KEY (token));
CREATE TABLE lidar_pc (token BLOB NOT NULL, next_token BLOB, prev_token BLOB,
  ego_pose_token BLOB NOT NULL, lidar_token BLOB NOT NULL, scene_token BLOB,
  filename VARCHAR(128), timestamp INTEGER, PRIMARY KEY (token));
CREATE TABLE scene (token BLOB NOT NULL, log_token BLOB NOT NULL, name TEXT,
  goal_ego_pose_token BLOB, roadblock_ids TEXT, PRIMARY KEY (token));
"""
LOG = "2021.07.16.20.45.29_veh-35_01095_01486"


def nuplan(root: Path, seconds: int = 8) -> Path:
    """Two scenes that follow each other: images at 10 Hz, point clouds at 20, poses at 100."""
    file = root / f"nuplan-v1.1/splits/mini/{LOG}.db"
    file.parent.mkdir(parents=True)
    blobs = root / "nuplan-v1.1/sensor_blobs"

    def token(kind: int, index: int) -> bytes:
        return kind.to_bytes(2) + index.to_bytes(6)

    database = sqlite3.connect(file)
    database.executescript(SCHEMA)
    log = token(9, 0)
    for number, channel in enumerate(("CAM_F0", "CAM_L0")):
        row = (token(1, number), log, channel)
        database.execute("INSERT INTO camera (token, log_token, channel) VALUES (?,?,?)", row)
    for scene in range(2):
        row = (token(2, scene), log, f"scene-{scene:03d}")
        database.execute("INSERT INTO scene (token, log_token, name) VALUES (?,?,?)", row)
    for index in range(seconds * 100):
        where, turned = pose(index / 100)
        row = (token(3, index), START_US + index * 10_000, *where, *turned, log)
        database.execute(
            "INSERT INTO ego_pose (token, timestamp, x, y, z, qw, qx, qy, qz, log_token)"
            f" VALUES ({','.join('?' * 10)})",
            row,
        )
    for index in range(seconds * 20):
        scene = token(2, int(index >= seconds * 10))
        row = (token(4, index), token(3, index * 5), b"l", scene, START_US + index * 50_000)
        database.execute(
            "INSERT INTO lidar_pc (token, ego_pose_token, lidar_token, scene_token, timestamp)"
            " VALUES (?,?,?,?,?)",
            row,
        )
    for index in range(seconds * 10):
        name = f"{LOG}/CAM_F0/{token(5, index).hex()}.jpg"
        (blobs / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbered(1, first=index)[0]).save(blobs / name, quality=95)
        row = (token(5, index), token(3, index * 10), token(1, 0), name, START_US + index * 100_000)
        database.execute(
            "INSERT INTO image (token, ego_pose_token, camera_token, filename_jpg, timestamp)"
            " VALUES (?,?,?,?,?)",
            row,
        )
    database.commit()
    database.close()
    return file
