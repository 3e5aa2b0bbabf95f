"""The index of a video file, from its packets; nothing is decoded."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float64, Int64

from drives.video.matroska import missing_bytes
from drives.video.orientation import is_on_its_side
from training.errors import BadInput

RAW = ("h264", "hevc", "m4v", "mpegvideo", "obu")  # streams without a container have no clock
# PyAV's exceptions for damaged files: FFmpeg's errors, and Python's for impossible values.
DAMAGE = (av.FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Index:
    """Index of a file from its packets, without decoding.

    Attributes:
        fps: average frames per second; 0 where the file does not say.
        size: (height, width) in pixels as coded; zeros where no decoder is known.
        stamps: presentation time of every frame, ascending; frame i is shown at `stamps[i]`,
            whatever the storage order. None where the container has none.
        unit_s: seconds of one unit of `stamps`.
        keys: presentation and decoding time of every keyframe, ascending.
        pixel_aspect: width of a pixel over its height.
        repeats: how often every coded frame is shown; None: once.
    """

    num_frames: int
    fps: float
    size: tuple[int, int]
    stamps: Int64[np.ndarray, " frame"] | None
    unit_s: float
    keys: list[tuple[int, int]]
    pixel_aspect: float
    repeats: Int64[np.ndarray, " coded"] | None


def num_frames(path: Path) -> int:
    """Number of video frames, counted from the packets without decoding them.

    Raises:
        BadInput: the file is not a readable video, or is shorter than its header states.
    """
    return index_of(path).num_frames


def frame_rate(path: Path) -> float:
    """Average frames per second from the container, 0 where it does not say.

    FFmpeg says 25 of every raw stream. BadInput as in `num_frames`.
    """
    return index_of(path).fps


def frame_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as the frames are shown; BadInput as in `num_frames`."""
    height, width = index_of(path).size
    stat = path.stat()
    return (
        (width, height) if _on_side(str(path), stat.st_mtime_ns, stat.st_size) else (height, width)
    )


def time_stamps(path: Path) -> Int64[np.ndarray, " frame"] | None:
    """Presentation time of each frame in the container's unit; None where there is none.

    Raises:
        BadInput: as in `num_frames`.
    """
    return index_of(path).stamps


def times_s(path: Path) -> Float64[np.ndarray, " frame"] | None:
    """Seconds from the first frame to each, by the container; None where it has no time stamps.

    Raises:
        BadInput: as in `num_frames`.
    """
    index = index_of(path)
    if index.stamps is None:
        return None
    return (index.stamps - index.stamps[:1]) * index.unit_s


def pixel_aspect(path: Path) -> float:
    """Width of a pixel over its height; BadInput as in `num_frames`."""
    return index_of(path).pixel_aspect


def index_of(path: Path) -> Index:
    try:
        stat = path.stat()
        index, declared = _read_index(str(path), stat.st_mtime_ns, stat.st_size)
    except (*DAMAGE, OSError) as error:
        raise BadInput(
            f"{path}: cannot be read as a video, or was cut short ({error}); "
            "copy the file again or re-export it"
        ) from error
    if index.num_frames < declared:
        raise BadInput(
            f"{path}: truncated at frame {index.num_frames} of {declared}; "
            "copy the file again or re-export it"
        )
    return index


# Unlimited, at 16 bytes per frame: without it, every clip would read the whole file.
@cache
def _read_index(path: str, _mtime_ns: int, _size: int) -> tuple[Index, int]:
    """The index of a file and the number of frames in its header (0: unknown)."""
    missing = missing_bytes(Path(path))
    if missing:
        raise ValueError(f"{missing} bytes are missing")
    with av.open(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context  # None where nobody can decode it
        # A packet cut by the end of the file is marked corrupt.
        packets = [p for p in container.demux(stream) if p.size and not p.is_corrupt]
        # Packets outside the edit list are decoded but not shown; the header counts them.
        shown = [p for p in packets if not p.is_discard]
        declared = stream.frames - (len(packets) - len(shown)) if stream.frames else 0
        stamps = sorted(p.pts for p in shown if p.pts is not None)
        usable = (
            len(stamps) == len(shown) == len(set(stamps))
            and container.format.name != "avi"  # no stamps; FFmpeg's guess fails with B-frames
        )
        keys = sorted(
            (p.pts, p.pts if p.dts is None else p.dts)
            for p in shown
            if p.is_keyframe and p.pts is not None
        )
        repeats = _repeats(shown) if _counts_ticks(container, stream) else None
        index = Index(
            num_frames=len(shown) if repeats is None else int(repeats.sum()),
            fps=0.0 if container.format.name in RAW else float(stream.average_rate or 0),
            size=(codec.height, codec.width) if codec else (0, 0),
            stamps=np.array(stamps, np.int64) if usable else None,
            unit_s=float(stream.time_base or 0),
            keys=keys,
            pixel_aspect=float(stream.sample_aspect_ratio or 1),
            repeats=repeats,
        )
    return index, declared


def _counts_ticks(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether packets are stamped with the tick at which they are shown: AVI without B-frames."""
    codec = stream.codec_context
    return container.format.name == "avi" and codec is not None and not codec.has_b_frames


def _repeats(packets: list[av.Packet]) -> Int64[np.ndarray, " coded"] | None:
    """How many ticks each is shown: capture programs write an empty packet for "as before"."""
    ticks = np.array([-1 if p.dts is None else p.dts for p in packets], np.int64)
    steps = np.diff(ticks)
    if not len(steps) or ticks[0] < 0 or steps.min() < 1 or steps.max() == 1:
        return None
    return np.append(steps, 1)


@cache
def _on_side(path: str, _mtime_ns: int, _size: int) -> bool:
    """Whether the first frame is shown on its side; False where none can be decoded."""
    try:
        with av.open(path) as container:
            return is_on_its_side(next(container.decode(video=0)))
    except (*DAMAGE, StopIteration):
        return False


def keyframe(index: Index, start: int) -> int | None:
    """Decoding time of the last keyframe shown at or before `start`; None: the beginning."""
    if index.stamps is None or not 0 < start < index.num_frames:
        return None
    count = bisect_right(index.keys, int(index.stamps[start]), key=lambda key: key[0])
    return index.keys[count - 1][1] if count > 1 else None


def place_of(index: Index, stamp: int | None, otherwise: int) -> int:
    """Number of the frame shown at `stamp`; `otherwise` where the file has no usable stamps."""
    if index.stamps is None or stamp is None:
        return otherwise
    place = int(np.searchsorted(index.stamps, stamp))
    return place if place < index.num_frames and index.stamps[place] == stamp else -1
