"""Frames on disk: video files, folders of images, missing frames.

Only this room uses PyAV.
"""

from drives.video.images import in_order
from drives.video.index import (
    frame_rate,
    frame_size,
    num_frames,
    pixel_aspect,
    time_stamps,
    times_s,
)
from drives.video.reading import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_source,
    read_frames,
    read_source,
)
from drives.video.writing import KEYFRAME_EVERY, write_video

__all__ = [
    "IMAGE_SUFFIXES",
    "KEYFRAME_EVERY",
    "VIDEO_SUFFIXES",
    "find_source",
    "frame_rate",
    "frame_size",
    "in_order",
    "num_frames",
    "pixel_aspect",
    "read_frames",
    "read_source",
    "time_stamps",
    "times_s",
    "write_video",
]
