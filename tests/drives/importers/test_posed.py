"""nuScenes and nuPlan: a car on a circle has its speed, yaw rate and curvature in every frame.

Files in the schema of the two; their own files need a licence that a test has not.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.base import import_recordings
from drives.importers.formats import RECORDING_FORMATS, recognised
from drives.importers.recording import Recording
from training.errors import BadInput

SPEED, YAW_RATE = 8.0, 0.4  # m/s, rad/s to the left
START_US = 1_532_402_927_000_000


def numbered(count: int, first: int = 0) -> list[np.ndarray]:
    """Frame i shows the bits of i as eight dark or bright bars, so that no codec blurs them."""
    bits = np.unpackbits(np.arange(first, first + count, dtype=np.uint8)[:, None], axis=1)
    bars = np.repeat(bits * 200 + 20, 8, axis=1)
    return [np.tile(row[None, :, None], (32, 1, 3)).astype(np.uint8) for row in bars]


def numbers_of(recording: Recording) -> list[int]:
    read = recording.read(0, len(recording.actions))
    frames = np.stack([frame.mean(axis=(0, 2)) for frame in read])
    return np.packbits(frames.reshape(len(frames), 8, -1).mean(axis=2) > 120, axis=1)[:, 0].tolist()


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
                    Image.fromarray(numbered(1, index)[0]).save(root / file, quality=95)
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


def check_circle(recording: Recording) -> None:
    columns = dict(zip(recording.action_names, recording.actions.T, strict=True))
    assert np.allclose(columns["speed_mps"], SPEED, rtol=1e-3)
    assert np.allclose(columns["yaw_rate_rad_s"], YAW_RATE, rtol=1e-3)
    assert np.allclose(columns["curvature_per_m"], YAW_RATE / SPEED, rtol=1e-2)


def test_scenes_of_nuscenes_are_recordings_with_motion(tmp_path: Path) -> None:
    root = nuscenes(tmp_path)
    assert recognised(root) == "nuscenes"
    first, second = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert (first.id, second.id) == ("scene-0061", "scene-0062")
    assert first.fps == pytest.approx(12, abs=0.1)
    for recording in (first, second):
        check_circle(recording)
        assert numbers_of(recording) == list(range(48))
        assert recording.meta["licence"] == "CC BY-NC-SA 4.0"
    assert first.meta["captions"][0]["text"].startswith("Parked truck")
    assert "captions" not in second.meta
    paths = import_recordings([first], tmp_path / "out", None, (0.5, 0, 0.5))
    assert [c.stop for c in open_drive(paths[0]).captions] == [24]


def test_the_steering_wheel_comes_from_the_can_expansion(tmp_path: Path) -> None:
    root = nuscenes(tmp_path)
    times = np.arange(-0.1, 5, 0.01)
    (root / "can_bus").mkdir()
    entries = [{"utime": START_US + round(t * 1e6), "value": -0.5} for t in times]
    file = root / "can_bus/scene-0061_steeranglefeedback.json"
    file.write_text(json.dumps(entries))
    first, second = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert "steering_wheel_rad" not in second.action_names
    column = first.actions[:, first.action_names.index("steering_wheel_rad")]
    assert np.allclose(column, -0.5)
    file.write_text(json.dumps(entries[:100]))  # it ends before the scene does
    first, _ = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert "steering_wheel_rad" not in first.action_names


def test_missing_images_are_named_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = nuscenes(tmp_path / "set")
    gone = sorted((root / "sweeps/CAM_FRONT").glob("*.jpg"))[0]
    gone.unlink()
    with pytest.raises(BadInput, match=f"1 of 48 images are missing, the first is .*{gone.name}"):
        RECORDING_FORMATS["nuscenes"].recordings(root)
    options = ["--on-bad", "skip", "--split", "1", "0", "0", "--num-workers", "0"]
    main(["nuscenes", str(root), str(tmp_path / "out"), *options])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scene-0062-train"]
    assert "1 left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "CAM_TOP"}, "one of: CAM_BACK, CAM_FRONT"),
        ({"version": "v1.0-test"}, "--version one of: v1.0-mini"),
    ],
)
def test_wrong_choices_are_told_what_there_is(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        RECORDING_FORMATS["nuscenes"].recordings(nuscenes(tmp_path), **options)


@pytest.mark.parametrize("name", ["scene", "sample", "sensor", "sample_data", "ego_pose"])
def test_damaged_tables_are_named(tmp_path: Path, name: str) -> None:
    root = nuscenes(tmp_path, num_scenes=1)
    file = root / f"v1.0-mini/{name}.json"
    whole = file.read_text()
    for content in (whole[: len(whole) // 2], "{}", "[{}]"):
        file.write_text(content)
        with pytest.raises(BadInput, match=f"{name}.json"):
            RECORDING_FORMATS["nuscenes"].recordings(root)
    file.write_text(whole.replace("n008__CAM_FRONT", "../../secret"))
    if name == "sample_data":
        with pytest.raises(BadInput, match="outside of the data set"):
            RECORDING_FORMATS["nuscenes"].recordings(root)


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
        Image.fromarray(numbered(1, index)[0]).save(blobs / name, quality=95)
        row = (token(5, index), token(3, index * 10), token(1, 0), name, START_US + index * 100_000)
        database.execute(
            "INSERT INTO image (token, ego_pose_token, camera_token, filename_jpg, timestamp)"
            " VALUES (?,?,?,?,?)",
            row,
        )
    database.commit()
    database.close()
    return file


def test_scenes_of_nuplan_are_recordings_with_motion(tmp_path: Path) -> None:
    file = nuplan(tmp_path)
    before = sorted(p.name for p in file.parent.iterdir()), file.read_bytes()
    for root in (tmp_path, file.parent, file):
        assert recognised(root) == "nuplan"
        first, second = RECORDING_FORMATS["nuplan"].recordings(root)
        assert (first.id, second.id) == (f"{LOG}-scene-000", f"{LOG}-scene-001")
        assert (first.fps, numbers_of(first)) == (10, list(range(40)))
        assert numbers_of(second) == list(range(40, 80))
        check_circle(first)
        check_circle(second)
    assert (sorted(p.name for p in file.parent.iterdir()), file.read_bytes()) == before


def test_what_nuplan_lacks_is_named(tmp_path: Path) -> None:
    file = nuplan(tmp_path)
    read = RECORDING_FORMATS["nuplan"].recordings
    with pytest.raises(BadInput, match="one of: CAM_F0, CAM_L0"):
        read(tmp_path, camera="CAM_B0")
    with pytest.raises(BadInput, match="no images of CAM_L0"):
        read(tmp_path, camera="CAM_L0")
    with pytest.raises(BadInput, match="40 of 40 images are missing"):
        read(tmp_path, blobs=tmp_path)
    blobs = tmp_path / "nuplan-v1.1/sensor_blobs"
    blobs.rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="no sensor_blobs/ above it"):
        read(tmp_path)
    assert len(read(tmp_path, blobs=tmp_path / "elsewhere")) == 2
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"\.db: cannot be read"):
        read(tmp_path, blobs=tmp_path / "elsewhere")
