"""Frechet distances of whole videos to the recorded ones, by the ruler's features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from training.errors import BadInput
from worldmodel.evaluation.intervals import Estimate
from worldmodel.evaluation.videos import frechet
from worldmodel.evaluation.videos.features import Networks, features_of
from worldmodel.evaluation.videos.i3d import I3D, load_i3d, weights_sha256

FVD, STATISTICS = FEATURES = ("fvd", "statistics")
FRAMES = 16  # of a clip, as those of published FVDs
Videos = Float[Tensor, "clip time 3 h w"]


class VideoDistances:
    """Distances of videos to recorded ones; both are cut to clips of 16 frames.

    Args:
        real: the recorded videos, in [-1, 1].
        drives: the drive of each; intervals are over drives.
        asked: of `FEATURES`.
        min_clips: fewest clips of 16 frames.
        i3d: file of FVD's network; None: the usual sources.

    Attributes:
        missing: why a feature is not measured; empty where all are.

    Raises:
        BadInput: the file is not FVD's network.
    """

    def __init__(
        self,
        real: Videos,
        drives: Sequence[str],
        asked: Sequence[str] = FEATURES,
        min_clips: int = 64,
        i3d: Path | None = None,
    ) -> None:
        self.pixels, parts = _cut(real), real.shape[1] // FRAMES
        self.units = [drive for drive in drives for _ in range(parts)]
        self.missing: dict[str, str] = {}
        self.weights: dict[str, str] = {}
        if len(self.units) < min_clips:
            why = (
                f"{len(real)} clips of {real.shape[1]} frames hold {len(self.units)} of {FRAMES}, "
                f"and min_clips={min_clips} are needed: with fewer the distance tells the number "
                "of clips; give a larger num_clips"
            )
            self.missing = dict.fromkeys(asked, why)
        network = self._i3d(i3d) if FVD in asked and FVD not in self.missing else None
        self.networks = Networks(None if network is None else network.to(real.device))
        self.kinds = [kind for kind in asked if kind not in self.missing]
        self.real = features_of(self.pixels, self.networks, self.units) if self.kinds else {}

    def _i3d(self, file: Path | None) -> I3D | None:
        try:
            network = load_i3d(file)
        except BadInput as error:
            if file is not None:
                raise
            self.missing[FVD] = str(error)
            return None
        self.weights["i3d"] = weights_sha256(network)
        return network

    def of(self, made: Videos) -> dict[str, Estimate]:
        """The distance of as many videos as were recorded, by feature."""
        pixels = _cut(made)
        if not self.kinds:
            return {}
        same = pixels.equal(self.pixels)
        found = self.real if same else features_of(pixels, self.networks, self.units)
        return {kind: frechet.estimate(self.real[kind], found[kind]) for kind in self.kinds}

    def facts(self) -> dict[str, Any]:
        """What the distances are of, their floor, and what is missing."""
        parts = {kind: frechet.halves(self.real[kind]) for kind in self.kinds}
        halves = {kind: both for kind, both in parts.items() if min(map(len, both)) > 1}
        return {
            "num_clips": len(self.units),
            "num_drives": len(set(self.units)),
            "clip_frames": FRAMES,
            "weights": self.weights,
            "real_other_half": {k: frechet.estimate(*v).plain() for k, v in halves.items()},
            "missing": self.missing,
        }


def _cut(videos: Videos) -> UInt8[Tensor, "part 16 h w 3"]:
    whole = videos[:, : videos.shape[1] // FRAMES * FRAMES]
    return rearrange(to_uint8(whole), "clip (part t) c h w -> (clip part) t h w c", t=FRAMES).cpu()
