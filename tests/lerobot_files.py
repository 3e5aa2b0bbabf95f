"""LeRobotDatasets as lerobot writes them: several episodes in one mp4 and one Parquet file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numbered_frames import numbered

from drives import video

FRONT, REAR = "observation.images.front", "observation.images.rear"
LENGTHS = (30, 41, 25)  # no multiple of the distance of keyframes
ACTION = {"dtype": "float32", "shape": [2], "names": ["steering", "throttle"]}
STATE = {"dtype": "float32", "shape": [2], "names": {"axes": ["Speed (km/h)", "throttle"]}}
BOOKKEEPING: dict[str, Any] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    **{
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    },
}


def camera(height: int, width: int) -> dict[str, Any]:
    """A feature as `lerobot` writes it for a camera."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.codec": "h264", "video.is_depth_map": False, "has_audio": False},
    }


def info(features: dict[str, Any], episodes: int, frames: int, fps: int = 10) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": "car",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features | BOOKKEEPING,
    }


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=4))


def write_table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_v3(
    root: Path,
    features: dict[str, Any],
    frames: dict[str, Sequence[np.ndarray]],
    rows: dict[str, Any],
    lengths: Sequence[int],
    tasks: Sequence[str] = ("drive on", "turn left"),
    task_of_row: Sequence[int] | None = None,
    fps: int = 10,
) -> Path:
    """All episodes in one mp4 per camera and one Parquet file.

    Args:
        frames: of each camera, episode after episode.
        rows: Arrow columns of the features, episode after episode.
        task_of_row: None: the number of the episode.
    """
    count, starts = sum(lengths), np.cumsum([0, *lengths])
    write_json(root / "meta/info.json", info(features, len(lengths), count, fps))
    episode = np.repeat(np.arange(len(lengths)), lengths)
    within = np.concatenate([np.arange(length) for length in lengths])
    task = episode % len(tasks) if task_of_row is None else np.array(task_of_row)
    table = {
        **rows,
        "timestamp": pa.array((within / fps).astype(np.float32)),
        "frame_index": within,
        "episode_index": episode,
        "index": np.arange(count),
        "task_index": task,
    }
    write_table(root / "data/chunk-000/file-000.parquet", table)
    write_table(
        root / "meta/tasks.parquet",
        {"task_index": np.arange(len(tasks)), "__index_level_0__": list(tasks)},
    )
    places: dict[str, Any] = {
        "episode_index": np.arange(len(lengths)),
        "length": np.array(lengths),
        "tasks": [[tasks[i % len(tasks)]] for i in range(len(lengths))],
        "data/chunk_index": np.zeros(len(lengths), int),
        "data/file_index": np.zeros(len(lengths), int),
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
    }
    for key, pictures in frames.items():
        file = root / f"videos/{key}/chunk-000/file-000.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        video.write_video(file, pictures, fps)
        places |= {
            f"videos/{key}/chunk_index": np.zeros(len(lengths), int),
            f"videos/{key}/file_index": np.zeros(len(lengths), int),
            f"videos/{key}/from_timestamp": starts[:-1] / fps,
            f"videos/{key}/to_timestamp": starts[1:] / fps,
        }
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", places)
    return root


def vectors(values: np.ndarray) -> pa.Array:
    """[frame number] as a column of lists of one length."""
    flat = pa.array(np.asarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def driving_set(root: Path, **changes: object) -> Path:
    count = sum(LENGTHS)
    ramp = np.arange(count) / 100
    rows = {
        "action": vectors(np.stack([ramp - 0.5, ramp], axis=1)),
        "observation.state": vectors(np.stack([36 * ramp, 1 - ramp], axis=1)),
    }
    frames = {FRONT: numbered(count), REAR: numbered(count, first=100)}
    features = {
        "action": ACTION,
        "observation.state": STATE,
        **dict.fromkeys(frames, camera(32, 64)),
    }
    return write_v3(root, features, frames, rows, LENGTHS, **changes)  # type: ignore[arg-type]
