"""Segments in comma2k19's layout: a video without a rate, poses, and logs on their own clock."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

STEP_S = 0.05


def write_hevc(path: Path, num_frames: int, first: int = 0) -> None:
    """A raw stream without a rate, as comma's cameras write it; frame i has grey 20 + first + i."""
    options = {"preset": "ultrafast", "crf": "4", "x265-params": "log-level=none:bframes=0:pools=1"}
    with av.open(str(path), "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=Fraction(20), options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(num_frames):
            grey = np.full((32, 32, 3), 20 + (first + index) % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        container.mux(stream.encode())


def save(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:  # np.save(path) would add an extension
        np.save(opened, values)


def write_segment(folder: Path, start_s: float, num_frames: int = 30, first: int = 0) -> Path:
    """A car that turns left at 0.1 rad/s and 10 m/s; the wheel stands at 30 degrees."""
    times = start_s + STEP_S * np.arange(num_frames)
    angle = 0.1 * times
    # Car axes forward, right, down at the north pole: up is ECEF's z.
    half = np.stack([np.zeros_like(angle), np.cos(angle / 2), np.sin(angle / 2)], 1)
    orientations = np.concatenate([half, np.zeros((num_frames, 1))], 1)
    save(folder / "global_pose/frame_times", times)
    save(folder / "global_pose/frame_orientations", orientations)
    place = np.stack([100 * np.sin(angle), -100 * np.cos(angle), np.full(num_frames, 6.3568e6)], 1)
    save(folder / "global_pose/frame_positions", place)
    logged = np.arange(start_s, start_s + num_frames * STEP_S, 0.012)
    for name, value in (("speed", 10.0), ("steering_angle", 30.0)):
        save(folder / f"processed_log/CAN/{name}/t", logged)
        save(folder / f"processed_log/CAN/{name}/value", np.full((len(logged), 1), value))
    write_hevc(folder / "video.hevc", num_frames, first)
    return folder
