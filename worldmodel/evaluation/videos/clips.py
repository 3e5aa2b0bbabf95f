"""Clips of a folder's videos, and their frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.evaluation.videos.folders import VideoFile

FEW_VIDEOS, PARTS = 5, 8


@dataclass(frozen=True)
class VideoClips:
    """Equally long clips that do not overlap.

    Attributes:
        places: (video, first frame at the rate at which it is read) of each clip.
    """

    videos: Sequence[VideoFile]
    places: Sequence[tuple[int, int]]
    num_frames: int

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[UInt8[Tensor, "time h w 3"]]:
        return map(self.read, range(len(self)))

    def read(self, clip: int) -> UInt8[Tensor, "time h w 3"]:
        number, start = self.places[clip]
        frames = self.videos[number].read(range(start, start + self.num_frames))
        return torch.from_numpy(frames)

    @property
    def names(self) -> list[str]:
        """The video of each clip."""
        return [self.videos[number].name for number, _ in self.places]

    @property
    def rates(self) -> list[float]:
        """Frames per second of each clip."""
        return [self.videos[number].rate for number, _ in self.places]

    @property
    def units(self) -> list[str]:
        """The units of a bootstrap: videos, or parts of few videos."""
        if len(set(self.names)) >= FEW_VIDEOS:
            return self.names
        return [
            f"{self.videos[number].name}, part {start * PARTS // self.videos[number].num_frames}"
            for number, start in self.places
        ]

    @property
    def ids(self) -> list[str]:
        """Video and stored frames of each clip."""
        texts = []
        for number, start in self.places:
            one = self.videos[number]
            last = one.stored(start + self.num_frames - 1)
            texts.append(f"{one.name}[{one.stored(start)}..{last}]")
        return texts


def spread_clips(videos: Sequence[VideoFile], num_frames: int, max_clips: int) -> VideoClips:
    """At most `max_clips` clips, spread evenly over all frames of all videos."""
    places = [
        (number, start)
        for number, one in enumerate(videos)
        for start in range(0, one.num_frames - num_frames + 1, num_frames)
    ]
    if len(places) > max_clips:
        places = [places[int(i)] for i in np.linspace(0, len(places) - 1, max_clips)]
    return VideoClips(videos, places, num_frames)


def too_short(videos: Sequence[VideoFile], num_frames: int) -> list[str]:
    """Names of videos shorter than a clip."""
    return [one.name for one in videos if one.num_frames < num_frames]
