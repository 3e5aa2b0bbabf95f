"""Joins videos into long files without decoding them, where their packets allow it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from drives.video.index import DAMAGE, index_of
from drives.video.orientation import matrix
from training.errors import BadInput

COPIED = ("h264", "hevc", "av1")  # codecs whose packets an mp4 holds and every reader decodes
UPRIGHT = (1, 0, 0, 1)
TICKS = 512  # of the container's clock per frame; as FFmpeg chooses it for mp4
STEADY = 0.25  # share of a frame's time by which a copied frame may have been shown off its place


def can_copy(path: Path, fps: float) -> bool:
    """Whether the video's packets can be put behind others': steady, whole, upright, square pixels.

    Raises:
        BadInput: it cannot be read.
    """
    index = index_of(path)
    if index.stamps is None or index.repeats is not None or index.pixel_aspect != 1:
        return False
    off = (index.stamps - index.stamps[0]) * index.unit_s * fps - np.arange(index.num_frames)
    if np.abs(off).max() > STEADY:
        return False
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            container.seek(0)
            first = next(container.decode(stream))
            return (
                stream.codec_context.name in (*COPIED, "libdav1d")
                and len(packets) == index.num_frames  # nothing is hidden by an edit list
                and packets[0].is_keyframe
                and matrix(first) == UPRIGHT
            )
    except (*DAMAGE, StopIteration):
        return False


class VideoJoiner:
    """Puts videos one behind the other into `file(0)`, `file(1)`, ..., whose first frame is at 0 s.

    The next file begins where a video was coded in another way than those before it, or where a
    file would grow beyond `max_bytes`. Frames keep every bit: only their times are written anew.

    Args:
        file: path of a file by its number.
    """

    def __init__(self, file: Callable[[int], Path], fps: float, max_bytes: int) -> None:
        self._file, self._max_bytes = file, max_bytes
        self._rate = Fraction(fps).limit_denominator(1001)
        self._tick = 1 / (self._rate * TICKS)
        self._number, self._num_frames, self._num_bytes = -1, 0, 0
        self._coding: Any = None
        self._open = ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "VideoJoiner":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def add(self, path: Path) -> tuple[int, float]:
        """Append a video; the number of its file, and the second where it begins there.

        Raises:
            BadInput: it cannot be read.
        """
        size = path.stat().st_size
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                codec = stream.codec_context
                coding = (codec.name, bytes(codec.extradata or b""), codec.width, codec.height)
                if coding != self._coding or self._num_bytes + size > self._max_bytes:
                    self._begin(stream)
                self._coding = coding
                begins = self._num_frames
                for packet in self._placed(list(container.demux(stream))):
                    self._container.mux(packet)
        except DAMAGE as error:
            raise BadInput(f"{path}: cannot be copied ({error}); re-encode it") from error
        self._num_bytes += size
        return self._number, float(begins / self._rate)

    def _begin(self, like: av.VideoStream) -> None:
        self._open.close()
        self._number += 1
        self._num_frames = self._num_bytes = 0
        path = self._file(self._number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._open.enter_context(av.open(str(path), "w", format="mp4"))
        self._stream = self._container.add_stream_from_template(like)
        self._stream.time_base = self._tick  # the container may take a finer one

    def _placed(self, packets: list[av.Packet]) -> Iterator[av.Packet]:
        """The packets on the file's clock, behind the frames that are there."""
        packets = [packet for packet in packets if packet.size]
        stamps = [packet.pts for packet in packets]
        places = np.argsort(np.argsort(np.array(stamps)))
        # Frames that are shown before others that they need come later in the file.
        delay = int((np.arange(len(packets)) - places).max())
        for order, (packet, place) in enumerate(zip(packets, places, strict=True)):
            packet.stream = self._stream
            packet.time_base = self._tick
            packet.pts = (self._num_frames + int(place)) * TICKS
            packet.dts = (self._num_frames + order - delay) * TICKS
            packet.duration = TICKS
            yield packet
        self._num_frames += len(packets)
