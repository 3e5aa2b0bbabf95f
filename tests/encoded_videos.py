"""Videos of the same frames, and what they decode to."""

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from drives import video


def smooth_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    """Frames that move over a smooth picture, as a camera's do: x264 predicts and plans them."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((width * 3, height * 3), Image.BICUBIC))
    corners = [(i % height, 2 * i % width) for i in range(num_frames)]
    return np.stack([picture[y : y + height, x : x + width] for y, x in corners])


def content(path: Path) -> str:
    """sha256 of the decoded pixels."""
    pixels = b"".join(frame.tobytes() for frame in video.read_frames(path))
    return hashlib.sha256(pixels).hexdigest()


def contents(folder: Path, times: int, height: int, width: int) -> set[str]:
    """What the same frames decode to, each time that they are written."""
    frames, found = smooth_frames(20, height, width), set()
    for index in range(times):
        path = folder / f"{os.getpid()}-{index}.mp4"
        video.write_video(path, frames, 10)
        found.add(content(path))
        path.unlink()
    return found


def contents_on(cpus: set[int], folder: Path, height: int, width: int) -> set[str]:
    os.sched_setaffinity(0, cpus)
    return contents(folder, 1, height, width)
