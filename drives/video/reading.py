"""Reads and writes videos; the only module that uses PyAV."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int64, UInt8

from drives.video.images import read_image
from training.disk.leftovers import written_whole
from training.errors import BadInput

# PyAV's exceptions for damaged files: FFmpeg's errors, and Python's for impossible values.
DAMAGE = (av.FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError)
MAX_PIXELS = 1 << 26  # of a frame: 8192 x 8192; a damaged header can state 16384 x 16384
KEYFRAME_EVERY = 16  # short groups of pictures: a random clip decodes at most 15 extra frames
# Without ACCURATE_RND and BITEXACT the rounding of swscale depends on the CPU's vector unit.
# FULL_CHR uses the chroma of every pixel, not of every second: +0.7 dB.
EXACT = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


class _DamagedError(Exception):
    """A frame of a stream cannot be decoded."""

    def __init__(self, frame: int, reason: str) -> None:
        super().__init__(reason)
        self.frame = frame


@dataclass(frozen=True)
class _Index:
    """Index of a file from its packets, without decoding.

    Attributes:
        stamps: presentation time of every frame, ascending, whatever the storage order: frame i
            is shown at `stamps[i]`. None where the container has none.
        keys: presentation and decoding time of every keyframe, ascending.
    """

    num_frames: int
    fps: float
    stamps: Int64[np.ndarray, " frame"] | None
    keys: list[tuple[int, int]]


def num_frames(path: Path) -> int:
    """Number of video frames, counted from the packets without decoding them.

    Raises:
        BadInput: the file is not a readable video, or is shorter than its header states.
    """
    return _index(path).num_frames


def frame_rate(path: Path) -> float:
    """Average frames per second from the container; BadInput as in `num_frames`."""
    return _index(path).fps


def time_stamps(path: Path) -> Int64[np.ndarray, " frame"] | None:
    """Presentation time of each frame in the container's unit; None where there is none.

    Raises:
        BadInput: as in `num_frames`.
    """
    return _index(path).stamps


def read_frames(
    path: Path, start: int = 0, stop: int | None = None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield RGB frames `start <= i < stop` in order of presentation.

    Decoding begins at the keyframe before `start`. The frames equal those of a read from the
    beginning bit by bit.

    Raises:
        BadInput: a frame cannot be decoded, is damaged, or is missing (named by its index).
    """
    index = _index(path)
    if stop is not None and start >= stop:
        return
    position, to_rgb = start, VideoReformatter()
    try:
        for frame in _decode(path, index, start, _keyframe(index, start)):
            try:
                picture = _converted(to_rgb, frame, "rgb24").to_ndarray()
            except DAMAGE as error:  # a header with an impossible size or format
                raise _DamagedError(position, str(error)) from error
            yield picture
            position += 1
            if position == stop:
                return
    except _DamagedError as error:
        raise BadInput(
            f"{path}: frame {error.frame} cannot be decoded ({error}); re-export the video"
        ) from error
    expected = index.num_frames if stop is None else stop
    if position < expected:
        raise BadInput(
            f"{path}: ends at frame {position}, but {expected} frames were expected; "
            "re-export the video"
        )


def read_source(
    source: Path | Sequence[Path], start: int = 0, stop: int | None = None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield RGB frames `start <= i < stop` of a video file or of a list of image files.

    Raises:
        BadInput: a frame cannot be decoded or has another size than that of `start`, or there
            are fewer than `stop`.
    """
    if not isinstance(source, Path) and stop is not None and stop > len(source):
        raise BadInput(f"{source[0].parent}: holds {len(source)} frames, {stop} were expected")
    frames = (
        read_frames(source, start, stop)
        if isinstance(source, Path)
        else map(read_image, source[start:stop])
    )
    size = None
    for index, frame in enumerate(frames, start):
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            where = source if isinstance(source, Path) else source[index].parent
            raise BadInput(
                f"{where}: frame {index} is {frame.shape[0]}x{frame.shape[1]}, frame {start} is "
                f"{size[0]}x{size[1]}; give frames of one size"
            )
        yield frame


def write_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    fps: float,
    crf: int = 12,
) -> int:
    """Write RGB frames as H.264: yuv420p, or yuv444p where a side is odd (4:2:0 needs even ones).

    Returns:
        The number of frames written. The file appears only when it is complete.

    Raises:
        BadInput: there is no frame, or a frame has another size than the first.
    """
    count, to_yuv = 0, VideoReformatter()
    with written_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream: av.VideoStream | None = None
        for image in frames:
            if stream is None:
                stream = _add_h264(container, image, fps, crf)
            if image.shape[:2] != (stream.height, stream.width):
                raise BadInput(
                    f"{path}: frame {count} is {image.shape[:2]}, the first was "
                    f"{(stream.height, stream.width)}; give frames of one size"
                )
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(_converted(to_yuv, picture, stream.pix_fmt)))
            count += 1
        if stream is None:
            raise BadInput(f"{path}: there are no frames to write; give at least one")
        container.mux(stream.encode())
    return count


def _index(path: Path) -> _Index:
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
def _read_index(path: str, _mtime_ns: int, _size: int) -> tuple[_Index, int]:
    """The index of a file and the number of frames in its header (0: unknown)."""
    with av.open(path) as container:
        stream = container.streams.video[0]
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
        index = _Index(
            num_frames=len(shown),
            fps=float(stream.average_rate or 0),
            stamps=np.array(stamps, np.int64) if usable else None,
            keys=keys,
        )
    return index, declared


def _keyframe(index: _Index, start: int) -> int | None:
    """Decoding time of the last keyframe shown at or before `start`; None: the beginning."""
    if index.stamps is None or not 0 < start < index.num_frames:
        return None
    count = bisect_right(index.keys, int(index.stamps[start]), key=lambda key: key[0])
    return index.keys[count - 1][1] if count > 1 else None


def _decode(path: Path, index: _Index, start: int, entry: int | None) -> Iterator[av.VideoFrame]:
    """Yield the frames from `start` on, each checked against its time stamp in the index.

    Where seeking does not reach `start` (containers differ; open groups of pictures lack
    references), the file is read from the beginning.
    """
    position = start if entry is not None else 0
    try:
        for place, frame in _decode_from(path, index, entry):
            if place < start and entry is not None:
                continue
            if place != position or (frame.is_corrupt and place >= start):
                raise _DamagedError(position, "missing or damaged")
            if place >= start:
                yield frame
            position += 1
    except _DamagedError:
        if entry is None or position > start:
            raise
    if entry is not None and position == start:
        yield from _decode(path, index, start, None)


def _decode_from(
    path: Path, index: _Index, entry: int | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every decodable frame from `entry` on, with its number (-1: not in the index)."""
    count = current = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError("its codec is not known")
            stream.thread_type = "NONE"  # predictable under many loader workers
            # Damage must raise; by default FFmpeg conceals it with neighbouring frames.
            stream.codec_context.options = {
                "err_detect": "explode",
                "max_pixels": str(MAX_PIXELS),
            }
            if entry is not None:
                container.seek(entry, stream=stream)
            for packet in container.demux(stream):
                current = max(count, _place(index, packet.pts, count))
                for frame in packet.decode():
                    yield _place(index, frame.pts, count), frame
                    count += 1
    except DAMAGE as error:
        raise _DamagedError(current, str(error)) from error


def _place(index: _Index, stamp: int | None, otherwise: int) -> int:
    """Number of the frame shown at `stamp`; `otherwise` where the file has no usable stamps."""
    if index.stamps is None or stamp is None:
        return otherwise
    place = int(np.searchsorted(index.stamps, stamp))
    return place if place < index.num_frames and index.stamps[place] == stamp else -1


def _add_h264(
    container: av.container.OutputContainer, image: np.ndarray, fps: float, crf: int
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
    stream.height, stream.width = image.shape[:2]
    even = image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
    stream.pix_fmt = "yuv420p" if even else "yuv444p"
    stream.options = {
        "crf": str(crf),
        "g": str(KEYFRAME_EVERY),
        "bf": "0",  # storage order is presentation order, for simple readers
        # The bytes depend on the frames alone. By default x264 chooses threads and slices by the
        # number of CPUs, and its mbtree for AVX-512 reads uninitialised memory.
        "threads": "1",
        "mbtree": "0",
    }
    return stream


def _converted(
    reformatter: VideoReformatter, frame: av.VideoFrame, pixels: str | None
) -> av.VideoFrame:
    """The frame in another pixel format, with equal values on every CPU."""
    return reformatter.reformat(frame, format=pixels, interpolation=EXACT, threads=1)
