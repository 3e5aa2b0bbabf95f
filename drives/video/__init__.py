"""Frames as they lie on disk: video files, folders of images, frames that are missing."""

from drives.video.reading import (
    KEYFRAME_EVERY,
    frame_rate,
    num_frames,
    read_frames,
    read_source,
    time_stamps,
    write_video,
)

__all__ = [
    "KEYFRAME_EVERY",
    "frame_rate",
    "num_frames",
    "read_frames",
    "read_source",
    "time_stamps",
    "write_video",
]
