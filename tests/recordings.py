"""Recordings as they are before an import: of the Udacity simulator, videos with tables, tokens."""

import csv
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numbered_frames import numbered
from PIL import Image

from drives import video


def udacity_folder(
    folder: Path, num_frames: int = 60, pauses: tuple[int, ...] = (), header: bool = False
) -> Path:
    """A recording as the simulator writes it; before each frame of `pauses` it stood still."""
    (folder / "IMG").mkdir(parents=True)
    time = datetime(2016, 12, 1, 23, 59, 58, 500_000)
    rows = [["center", "left", "right", "steering", "throttle", "brake", "speed"]] * header
    for index, frame in enumerate(numbered(num_frames)):
        time += timedelta(seconds=5 if index in pauses else 0.1)
        name = f"center_{time:%Y_%m_%d_%H_%M_%S}_{time.microsecond // 1000:03d}.jpg"
        Image.fromarray(frame).save(folder / "IMG" / name)
        camera = "C:\\Users\\me\\IMG\\" if index % 2 else "/home/me/IMG/"
        row = [camera + name, " IMG/left.jpg", " IMG/right.jpg"]
        rows.append([*row, f" {index / 100}", "1", "0", f"{index}"])
    with (folder / "driving_log.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def video_recording(folder: Path, name: str = "a", **columns: np.ndarray) -> Path:
    """`name.mp4` of 60 numbered frames at 10 fps, and `name.csv` with the columns given."""
    folder.mkdir(parents=True, exist_ok=True)
    video.write_video(folder / f"{name}.mp4", numbered(60), 10)
    columns = columns or {"steering": np.linspace(0, 1, 60)}
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder


def comma_tokens(num_frames: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, (num_frames, 8, 16)).astype(np.int16)
