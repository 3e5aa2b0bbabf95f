"""Frames that carry their own number, and videos of them as people's cameras write them."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def numbered_frame(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Red top left, green top right; eight cells of the lowest quarter hold the number's bits."""
    frame = np.zeros((height, width, 3), np.uint8)
    top, left, cell = height * 3 // 4, width // 2, width // 8
    frame[:top, :left], frame[:top, left:] = (220, 30, 30), (30, 200, 30)
    for bit in range(8):
        frame[top:, bit * cell : (bit + 1) * cell] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    row, cell = frame[height * 7 // 8], width // 8
    return sum(int(row[bit * cell + cell // 2].mean() > 127) << bit for bit in range(8))


def numbers_of(frames: Iterable[np.ndarray]) -> list[int]:
    """The numbers of upright frames; fails where a frame is turned or mirrored."""
    found = []
    for frame in frames:
        height, width = frame.shape[:2]
        left, right = frame[height // 8, width // 4], frame[height // 8, width * 3 // 4]
        assert left.argmax() == 0, f"the top left is {left}"
        assert right.argmax() == 1, f"the top right is {right}"
        found.append(number_of(frame))
    return found


def write_numbered(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: float = 10,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    setup: Callable[[Any], None] | None = None,
) -> Path:
    """A video; `times_ms` are the frames' time stamps, `setup` changes the stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if codec.startswith("libx"):
            stream.options = {"crf": "8", "g": "20", "bf": "0"}
        if codec == "libx265":
            stream.options |= {"x265-params": "log-level=none"}
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if setup:
            setup(stream)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if times_ms is not None:
                picture.pts, picture.time_base = times_ms[index], Fraction(1, 1000)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path
