"""Reads the frames of videos and of folders of images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Int, UInt8

from drives.video.images import in_order, read_image
from drives.video.index import DAMAGE, Index, index_of, keyframe, place_of
from drives.video.orientation import upright
from training.errors import BadInput

RAW_SUFFIXES = (".hevc", ".h265", ".265", ".h264", ".264")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".ts", *RAW_SUFFIXES)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 1 << 26  # of a frame: 8192 x 8192; a damaged header can state 16384 x 16384
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


def read_frames(
    path: Path, start: int = 0, stop: int | None = None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield RGB frames `start <= i < stop` in order of presentation.

    Decoding begins at the keyframe before `start`; frames equal those of a read from the beginning
    bit by bit.

    Raises:
        BadInput: a frame cannot be decoded, is damaged, or is missing (named by its index).
    """
    index = index_of(path)
    if stop is not None and start >= stop:
        return
    position, to_rgb = start, VideoReformatter()
    try:
        for frame in _decode(path, index, start, keyframe(index, start)):
            try:
                picture = upright(converted(to_rgb, frame, "rgb24").to_ndarray(), frame)
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


def find_source(folder: Path) -> Path | list[Path]:
    """The video file of a drive's folder, or its image files in the order of their numbers.

    Raises:
        BadInput: there is neither, or two images have one number.
    """
    videos = sorted(p for p in folder.glob("video.*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        return videos[0]
    images = in_order(p for p in folder.glob("frames/[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise BadInput(f"{folder}: has neither video.mp4 nor frames/*.png; add one of them")
    return images


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


def read_picked(
    source: Path | Sequence[Path], picks: Sequence[int] | Int[np.ndarray, " picked"]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield these RGB frames, whose numbers rise; BadInput as in `read_source`."""
    if not len(picks):
        return
    if not isinstance(source, Path):
        yield from read_source([source[pick] for pick in picks])
        return
    first, wanted = int(picks[0]), {int(pick) for pick in picks}
    for index, frame in enumerate(read_source(source, first, int(picks[-1]) + 1), first):
        if index in wanted:
            yield frame


def _decode(path: Path, index: Index, start: int, entry: int | None) -> Iterator[av.VideoFrame]:
    """Yield the frames from `start` on, each checked against its time stamp in the index.

    If seeking misses `start` (containers differ; open groups of pictures lack references), the file
    is read from the beginning.
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
    path: Path, index: Index, entry: int | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every decodable frame from `entry` on, with its number (-1: not in the index)."""
    count = current = 0
    repeats = iter(() if index.repeats is None else index.repeats.tolist())
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
                current = max(count, place_of(index, packet.pts, count))
                for frame in packet.decode():
                    for _ in range(next(repeats, 1)):
                        yield place_of(index, frame.pts, count), frame
                        count += 1
    except DAMAGE as error:
        raise _DamagedError(current, str(error)) from error


def converted(
    reformatter: VideoReformatter, frame: av.VideoFrame, pixels: str | None
) -> av.VideoFrame:
    """The frame in another pixel format, with equal values on every CPU."""
    return reformatter.reformat(frame, format=pixels, interpolation=EXACT, threads=1)
