"""What a video file holds, from its packets; nothing is decoded."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from jaxtyping import Int64

from training.errors import BadInput

# PyAV's exceptions for damaged files: FFmpeg's errors, and Python's for impossible values.
DAMAGE = (av.FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Index:
    """Index of a file from its packets, without decoding.

    Attributes:
        size: (height, width) in pixels; zeros where no decoder is known.
        stamps: presentation time of every frame, ascending, whatever the storage order: frame i
            is shown at `stamps[i]`. None where the container has none.
        keys: presentation and decoding time of every keyframe, ascending.
    """

    num_frames: int
    fps: float
    size: tuple[int, int]
    stamps: Int64[np.ndarray, " frame"] | None
    keys: list[tuple[int, int]]


def num_frames(path: Path) -> int:
    """Number of video frames, counted from the packets without decoding them.

    Raises:
        BadInput: the file is not a readable video, or is shorter than its header states.
    """
    return index_of(path).num_frames


def frame_rate(path: Path) -> float:
    """Average frames per second from the container; BadInput as in `num_frames`."""
    return index_of(path).fps


def frame_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels from the container; BadInput as in `num_frames`."""
    return index_of(path).size


def time_stamps(path: Path) -> Int64[np.ndarray, " frame"] | None:
    """Presentation time of each frame in the container's unit; None where there is none.

    Raises:
        BadInput: as in `num_frames`.
    """
    return index_of(path).stamps


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


# Unlimited cache: 16 bytes per frame; without it, every clip would read the whole file.
@cache
def _read_index(path: str, _mtime_ns: int, _size: int) -> tuple[Index, int]:
    """The index of a file and the number of frames in its header (0: unknown)."""
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
        index = Index(
            num_frames=len(shown),
            fps=float(stream.average_rate or 0),
            size=(codec.height, codec.width) if codec else (0, 0),
            stamps=np.array(stamps, np.int64) if usable else None,
            keys=keys,
        )
    return index, declared


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
