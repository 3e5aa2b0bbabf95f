"""Writes videos: the same frames give the same bytes on every machine."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from drives.video.reading import converted
from training.disk.leftovers import written_whole
from training.errors import BadInput

KEYFRAME_EVERY = 16  # short groups of pictures: a random clip decodes at most 15 extra frames


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
            container.mux(stream.encode(converted(to_yuv, picture, stream.pix_fmt)))
            count += 1
        if stream is None:
            raise BadInput(f"{path}: there are no frames to write; give at least one")
        container.mux(stream.encode())
    return count


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
