"""Video files in and out, through PyAV: the only place that touches a container."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from training.errors import BadInput

KEYFRAME_EVERY = 16  # short groups of pictures: a random clip decodes at most 15 extra frames


def num_frames(path: Path) -> int:
    """Number of video frames, counted from the packets without decoding them.

    Raises:
        BadInput: the file is not a readable video, or ends before its header says.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            declared = stream.frames
            count = sum(1 for packet in container.demux(stream) if packet.size)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise BadInput(f"{path}: cannot be read as a video ({error}); re-export it") from error
    if declared and count < declared:
        raise BadInput(
            f"{path}: truncated at frame {count} of {declared}; copy the file again or re-export it"
        )
    return count


def read_frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield frames `start <= i < stop` in order, each uint8 [height width 3], RGB.

    Raises:
        BadInput: a frame cannot be decoded (named by its index).
    """
    index = start
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # predictable under many loader workers
            index = _seek(container, stream, start)
            for frame in container.decode(stream):
                if stop is not None and index >= stop:
                    return
                if index >= start:
                    yield frame.to_ndarray(format="rgb24")
                index += 1
    except (av.FFmpegError, IndexError, OSError) as error:
        raise BadInput(
            f"{path}: frame {index} cannot be decoded ({error}); re-export the video"
        ) from error
    if stop is not None and index < stop:
        raise BadInput(f"{path}: ends at frame {index}, but frame {stop - 1} was expected")


def _seek(container: av.container.InputContainer, stream: av.VideoStream, start: int) -> int:
    """Move to the keyframe at or before `start`; return the index of the next decoded frame.

    Only constant-rate files are entered in the middle; all others are read from the
    beginning, so that an index always means the same frame.
    """
    rate, base = stream.average_rate, stream.time_base
    if start < KEYFRAME_EVERY or not rate or not base or stream.average_rate != stream.base_rate:
        return 0
    offset = stream.start_time or 0
    container.seek(offset + int(start / rate / base), stream=stream)
    first = next(container.decode(stream), None)
    if first is None or first.pts is None:
        index = 0
        container.seek(0, stream=stream)
        return index
    index = round((first.pts - offset) * base * rate)
    container.seek(offset + int(Fraction(index) / rate / base), stream=stream)
    return index


def write_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    fps: float,
    crf: int = 12,
) -> int:
    """Write RGB frames as H.264 (yuv444p when a side is odd or tiny detail matters at low crf).

    Returns:
        The number of frames written. The file appears only when it is complete.
    """
    partial = path.with_name(path.name + ".partial.mp4")
    count = 0
    try:
        with av.open(str(partial), "w") as container:
            stream = None
            for image in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt = "yuv420p" if _even(image) else "yuv444p"
                    stream.options = {"crf": str(crf), "g": str(KEYFRAME_EVERY), "bf": "0"}
                for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image))):
                    container.mux(packet)
                count += 1
            if stream is None:
                raise ValueError(f"{path}: no frames to write")
            container.mux(stream.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _even(image: np.ndarray) -> bool:
    return image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
