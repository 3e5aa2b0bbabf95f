"""One pass over the clips of a folder, for all scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from drives.clips.preprocessing import to_pixels
from tokenizer.compare.inception import Inception
from worldmodel.evaluation.videos.clips import VideoClips
from worldmodel.evaluation.videos.duplicates import ClipPrint, print_of
from worldmodel.evaluation.videos.frechet import VideoFeatures
from worldmodel.evaluation.videos.i3d import I3D, i3d_features
from worldmodel.evaluation.videos.pixels import change, flicker_alone, sharpness
from worldmodel.evaluation.videos.statistics import clip_statistics

AT_ONCE = 4  # videos in memory that a network sees together
Batch = UInt8[Tensor, "n time h w 3"]
ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "sharpness": lambda clip: sharpness(clip).mean(),
    "flicker": flicker_alone,
    "change": change,
}


@dataclass(frozen=True)
class Networks:
    """Networks of the features; None: not measured.

    Attributes:
        side: pixels to which I3D's frames are scaled.
        images_per_clip: frames of each clip that Inception sees.
    """

    i3d: I3D | None = None
    inception: Inception | None = None
    side: int = 224
    images_per_clip: int = 4


@dataclass
class Seen:
    """Features of the clips of a folder.

    Attributes:
        units: the bootstrap's unit of each clip.
        vectors: by kind, a row per clip (`fid`: per frame).
        frozen: the same for clips frozen at their first frame, the copy floor.
        prints: for the search for near-duplicates.
        alone: a number per clip, by score.
    """

    units: list[str]
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    frozen: dict[str, list[Tensor]] = field(default_factory=dict)
    prints: list[ClipPrint] = field(default_factory=list)
    alone: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ALONE})

    def features(self, kind: str, frozen: bool = False) -> VideoFeatures:
        """The vectors of `fvd`, `fid` or `statistics`."""
        chosen = self.frozen if frozen else self.vectors
        vectors = torch.cat(chosen[kind]).double().numpy()
        per_clip = len(vectors) // len(self.units)
        return VideoFeatures(vectors, list(np.repeat(self.units, per_clip)))


def see(
    clips: VideoClips, networks: Networks, batch_size: int, title: str, frozen: bool = False
) -> Seen:
    """Decode all clips once.

    Args:
        frozen: also see each clip frozen at its first frame.

    Raises:
        BadInput: a frame cannot be read.
    """
    seen = Seen(clips.units)
    with tqdm(total=len(clips), desc=title, unit="clip", leave=False) as progress:
        for batch in batches(clips, batch_size):
            _add(seen.vectors, vectors_of(batch, networks))
            if frozen:
                _add(seen.frozen, vectors_of(batch[:, :1].expand_as(batch), networks))
            for clip in batch:
                seen.prints.append(print_of(clip, clips.rates[len(seen.prints)]))
                for name, score in ALONE.items():
                    seen.alone[name].append(float(score(clip)))
            progress.update(len(batch))
    return seen


def _add(rows: dict[str, list[Tensor]], found: dict[str, Tensor]) -> None:
    for kind, vectors in found.items():
        rows.setdefault(kind, []).append(vectors)


def features_of(
    videos: Batch, networks: Networks, units: Sequence[str]
) -> dict[str, VideoFeatures]:
    """Feature vectors of videos in memory, by kind.

    Args:
        units: the bootstrap's unit of each video.
    """
    rows = [vectors_of(batch, networks) for batch in videos.split(AT_ONCE)]
    found = {}
    for kind in rows[0]:
        vectors = torch.cat([row[kind] for row in rows]).double().numpy()
        repeated = np.repeat(np.asarray(units, dtype=object), len(vectors) // len(units))
        found[kind] = VideoFeatures(vectors, repeated.tolist())
    return found


def batches(clips: VideoClips, size: int) -> Iterator[Batch]:
    """Consecutive clips of one frame size, stacked."""
    waiting: list[Tensor] = []
    for clip in clips:
        if waiting and (len(waiting) == size or waiting[0].shape != clip.shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(clip)
    if waiting:
        yield torch.stack(waiting)


@torch.no_grad()
def vectors_of(clips: Batch, networks: Networks) -> dict[str, Tensor]:
    """Feature vectors by kind."""
    found = {"statistics": clip_statistics(clips)}
    if networks.i3d is not None:
        found["fvd"] = i3d_features(networks.i3d, clips, networks.side)
    if networks.inception is not None:
        chosen = torch.linspace(0, clips.shape[1] - 1, networks.images_per_clip).long()
        images = to_pixels(clips[:, chosen].flatten(0, 1).movedim(-1, 1))
        device = next(networks.inception.parameters()).device
        found["fid"] = networks.inception(images.to(device)).cpu()
    return found
