"""Folders of videos of any system: MP4s, GIFs, or a folder of images per video."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from drives import video
from drives.actions.table import actions_file
from drives.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from drives.video.gaps import describe, find_drops
from drives.video.images import check_sizes
from training.disk.hashing import file_sha256
from training.errors import BadInput

SUFFIXES = (*VIDEO_SUFFIXES, ".gif")
SAME_RATE = 0.01  # rates that differ by less are equal


@dataclass(frozen=True)
class VideoFile:
    """One video, checked when found; pixels are read on demand.

    Attributes:
        name: of the file without suffix, or of the folder; equal names make a pair.
        source: the video file, or the sorted image files.
        fps: frames per second; frames are taken at `rate`.
        rate: frames per second at which `read` returns frames.
        actions: folder of this video's action table, if any.
    """

    name: str
    source: Path | list[Path]
    fps: float
    rate: float
    stored_frames: int
    size: tuple[int, int]
    actions: Path | None

    @property
    def num_frames(self) -> int:
        """Frames at `rate`."""
        return int(self.stored_frames * self.rate / self.fps + 1e-6)

    def stored(self, index: int) -> int:
        """The stored frame that is shown at frame `index` of `rate`."""
        return min(int(index * self.fps / self.rate + 1e-6), self.stored_frames - 1)

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "time h w 3"]:
        """Frames (at `rate`) with these ascending indices; BadInput where one cannot be read."""
        wanted = Counter(self.stored(index) for index in indices)
        first, last = min(wanted), max(wanted)
        frames = enumerate(video.read_source(self.source, first, last + 1), first)
        return np.stack([f for i, frame in frames for f in [frame] * wanted[i]])

    def sha256(self) -> str:
        """sha256 of the file, or of all image files in order."""
        if isinstance(self.source, Path):
            return file_sha256(self.source)
        return hashlib.sha256("".join(map(file_sha256, self.source)).encode()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """Facts for the record."""
        return {
            "name": self.name,
            "sha256": self.sha256(),
            "num_frames": self.stored_frames,
            "fps": self.fps,
            "size": list(self.size),
        }


def open_videos(
    option: str, folder: Path, fps: float | None, image_fps: float | None
) -> list[VideoFile]:
    """All videos of a folder, sorted by name; hidden and other files are skipped.

    Args:
        option: name of the setting, for messages.
        fps: rate at which frames are read; None: each video's own.

    Raises:
        BadInput: there is no such folder or no video in it, a file cannot be read, two videos have
            one name, or a folder of images has no rate.
    """
    if not folder.is_dir():
        raise BadInput(f"{option}={folder}: no such folder; give one that holds videos")
    found = sorted(_sources(folder), key=lambda entry: entry[0])
    if not found:
        loose = any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())
        remedy = (
            "put the images of each video into a folder of its own"
            if loose
            else f"give MP4s, GIFs or folders of images ({', '.join(SUFFIXES)})"
        )
        raise BadInput(f"{option}={folder}: holds no videos; {remedy}")
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    if twice:
        raise BadInput(f"{option}={folder}: two videos are named {twice[0]!r}; rename one")
    return [_opened(*entry, fps, image_fps) for entry in found]


def _sources(folder: Path) -> list[tuple[str, Path | list[Path], Path | None]]:
    """Name, source and action folder of each video.

    A drive's `video.mp4` takes the name of its folder, else all drives would be pairs.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in entries if path.is_file() and path.suffix.lower() in SUFFIXES]
    alone = folder if len(files) == 1 and actions_file(folder) else None
    found: list[tuple[str, Path | list[Path], Path | None]] = [
        (folder.resolve().name if path.stem == "video" else path.stem, path, alone)
        for path in files
    ]
    for inner in (path for path in entries if path.is_dir()):
        actions = inner if actions_file(inner) else None
        parts = sorted(path for path in inner.iterdir() if not path.name.startswith("."))
        videos = [path for path in parts if path.suffix.lower() in SUFFIXES]
        images = [path for path in parts if path.suffix.lower() in IMAGE_SUFFIXES]
        images = images or sorted(
            path for path in inner.glob("frames/*") if path.suffix.lower() in IMAGE_SUFFIXES
        )
        if len(videos) > 1:
            raise BadInput(f"{inner}: holds {len(videos)} videos; put one into each folder")
        if videos or images:
            found.append((inner.name, videos[0] if videos else images, actions))
    return found


def _opened(
    name: str,
    source: Path | list[Path],
    actions: Path | None,
    fps: float | None,
    image_fps: float | None,
) -> VideoFile:
    if isinstance(source, list):
        if image_fps is None:
            raise BadInput(f"{source[0].parent}: images state no frame rate; give image_fps=RATE")
        own, count, size = image_fps, len(source), check_sizes(source)
    else:
        own, count = video.frame_rate(source) or fps or 0.0, video.num_frames(source)
        if own <= 0 or count < 1:
            raise BadInput(f"{source}: has {count} frames at {own:g} fps; re-export the video")
        height, width, _ = next(iter(video.read_frames(source, 0, 1))).shape
        size = (height, width)
    return VideoFile(name, source, own, fps or own, count, size, actions)


def traps(real: Sequence[VideoFile], fake: Sequence[VideoFile]) -> dict[str, str]:
    """Named warnings: why numbers of these folders differ from others."""
    found = {}
    rates = [sorted({round(v.rate, 2) for v in side}) for side in (real, fake)]
    if max(map(max, rates)) > (1 + SAME_RATE) * min(map(min, rates)):
        found["frame_rate"] = (
            f"videos run at different rates (real {_list(rates[0])}, fake {_list(rates[1])} fps): "
            "the same motion looks faster in one; give fps=RATE to read all at one"
        )
    sizes = [sorted({v.size for v in side}) for side in (real, fake)]
    if sizes[0] != sizes[1] or len(sizes[0]) > 1:
        shown = [_list(f"{h}x{w}" for h, w in side) for side in sizes]
        found["size"] = (
            f"videos differ in size (real {shown[0]}, fake {shown[1]}): they are scaled to one, "
            "which blurs the larger or shows the smaller as blurred"
        )
    missing = [
        f"{v.name}: {describe(drops)}" for v in (*real, *fake) if (drops := find_drops(v.source))
    ]
    if missing:
        found["missing_frames"] = (
            f"frames are missing in {len(missing)} videos ({missing[0]}): writers of GIFs and of "
            "variable rates merge equal frames, so that 16 frames are read as 10"
        )
    return found


def _list(values: Any) -> str:
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return ", ".join(texts[:5]) + (" and more" if len(texts) > 5 else "")
