"""The ruler: measures two folders of videos, and refuses what would mislead."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizer.compare.fid import load_inception, origin
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from training.errors import BadInput
from training.pages.wording import counted
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.videos import frechet
from worldmodel.evaluation.videos.clips import FEW_VIDEOS, VideoClips, spread_clips, too_short
from worldmodel.evaluation.videos.config import DISTANCES, METRICS, MIN_I3D_FRAMES, RulerConfig
from worldmodel.evaluation.videos.control import Control
from worldmodel.evaluation.videos.duplicates import near_duplicates
from worldmodel.evaluation.videos.features import Networks, Seen, see
from worldmodel.evaluation.videos.folders import VideoFile, open_videos, traps
from worldmodel.evaluation.videos.i3d import SIDE, load_i3d, weights_sha256
from worldmodel.evaluation.videos.pairs import (
    Horizon,
    added_flicker,
    common_horizon,
    pair_scores,
    pairs_of,
    summary,
)

USUAL_FRAMES = 16


@dataclass(frozen=True)
class Subject:
    """Both folders, opened and checked; only each video's first frame is decoded."""

    settings: RulerConfig
    real: list[VideoFile]
    fake: list[VideoFile]

    @cached_property
    def clips(self) -> tuple[VideoClips, VideoClips]:
        """Clips of the real and of the fake folder."""
        s = self.settings
        sides = (self.real, self.fake)
        return tuple(spread_clips(v, s.clip_frames, s.max_clips) for v in sides)  # type: ignore[return-value]

    @cached_property
    def pairs(self) -> list[tuple[VideoFile, VideoFile]]:
        return pairs_of(self.real, self.fake)

    @cached_property
    def horizon(self) -> Horizon | str:
        s = self.settings
        if not self.pairs:
            return "no video of one folder is named as one of the other"
        return common_horizon(self.pairs, s.prompt_frames, s.horizons, s.max_horizon_s)

    @cached_property
    def control(self) -> Control:
        return Control(*self.clips)

    def refusal(self, metric: str) -> str:
        """Why a metric is not measured; "" where it is."""
        s = self.settings
        counts = tuple(map(len, self.clips))
        have = f"real has {counts[0]}, fake {counts[1]}"
        if metric == "paired":
            return self.horizon if isinstance(self.horizon, str) else ""
        if not min(counts):
            return f"a folder has no clip of {s.clip_frames} frames ({have}); give clip_frames=N"
        if metric == "control":
            return self.control.refusal()
        if metric == "fid":
            if s.inception is None:
                return "needs inception=FILE, the published weights (no package ships them)"
            images = min(counts) * s.images_per_clip
            if images < s.min_images:
                return f"needs min_images={s.min_images} frames of each folder, has {images}"
        if metric == "fvd" and s.clip_frames < MIN_I3D_FRAMES:
            return f"I3D needs {MIN_I3D_FRAMES} frames, clip_frames={s.clip_frames}"
        if metric in ("fvd", "statistics") and min(counts) < s.min_clips:
            return (
                f"needs min_clips={s.min_clips} clips of {s.clip_frames} frames from each folder, "
                f"{have}: with fewer the distance tells the number of clips"
            )
        return ""

    def warnings(self) -> dict[str, str]:
        """Named warnings about these folders and settings."""
        s, found = self.settings, traps(self.real, self.fake)
        if s.side != SIDE:
            found["resize"] = f"side={s.side}: published FVDs scale frames to {SIDE}"
        if s.clip_frames != USUAL_FRAMES:
            found["clip_frames"] = (
                f"clip_frames={s.clip_frames}: published FVDs are of {USUAL_FRAMES} frames"
            )
        short = [too_short(videos, s.clip_frames) for videos in (self.real, self.fake)]
        if short[0] or short[1]:
            found["short_videos"] = (
                f"{len(short[0])} real and {len(short[1])} fake videos hold no clip of "
                f"{s.clip_frames} frames and are left out ({(short[0] + short[1])[0]})"
            )
        if min(len(self.real), len(self.fake)) < FEW_VIDEOS:
            found["few_videos"] = (
                f"real has {counted(len(self.real), 'video')}, fake {len(self.fake)}; intervals "
                "are over parts of videos and say nothing of other videos"
            )
        counts = tuple(map(len, self.clips))
        if min(counts) and max(counts) > 1.1 * min(counts):
            found["unequal_numbers"] = (
                f"{counts[0]} real and {counts[1]} fake clips; compare FVDs of equal numbers"
            )
        return found


def open_subject(settings: RulerConfig) -> Subject:
    """Open and check both folders, and every metric that was asked for.

    Raises:
        BadInput: a folder or file is unusable, or a named metric or every metric is impossible.
    """
    s = settings
    real, fake = (
        open_videos(name, Path(folder), s.fps, s.image_fps)
        for name, folder in (("real", s.real), ("fake", s.fake))
    )
    subject = Subject(s, real, fake)
    refusals = {metric: subject.refusal(metric) for metric in METRICS}
    for metric in s.metrics:
        if refusals[metric]:
            raise BadInput(f"metrics={metric}: {refusals[metric]}")
    if all(refusals.values()):
        raise BadInput(f"nothing can be measured: {'; '.join(dict.fromkeys(refusals.values()))}")
    return subject


def measure(subject: Subject, device: str = "cpu") -> dict[str, Any]:
    """Every score of the settings, or why it is refused."""
    s = subject.settings
    refused = {m: why for m in s.metrics or METRICS if (why := subject.refusal(m))}
    wanted = [m for m in s.metrics or METRICS if m not in refused]
    networks, perceptual, weights = load_networks(s, wanted, device)
    result: dict[str, Any] = {
        "warnings": subject.warnings(),
        "refused": refused,
        "weights": weights,
    }
    if set(wanted) - {"paired", "control"}:
        chosen = [m for m in DISTANCES if m in wanted]
        seen = {
            name: see(clips, networks, s.batch_size, name, frozen=bool(chosen) and name == "real")
            for name, clips in zip(("real", "fake"), subject.clips, strict=True)
        }
        result["distances"] = {m: distance(m, seen) for m in chosen}
        if "single" in wanted:
            result["single"] = alone(seen)
        if "duplicates" in wanted:
            result["near_duplicates"] = duplicates(subject, seen)
    if "paired" in wanted:
        result["paired"] = paired(subject, perceptual)
    if "control" in wanted:
        result["control"] = subject.control.measure()
    return result


def load_networks(
    s: RulerConfig, wanted: Sequence[str], device: str
) -> tuple[Networks, PerceptualDistance | None, dict[str, str]]:
    """Networks of the metrics, and hashes of their weights.

    Raises:
        BadInput: weights are missing or do not fit.
    """
    i3d = inception = perceptual = None
    weights = {}
    if "fvd" in wanted:
        i3d = load_i3d(Path(s.i3d) if s.i3d else None)
        weights["i3d"] = weights_sha256(i3d)
        i3d = i3d.to(device)
    if "fid" in wanted:
        assert s.inception is not None
        inception = load_inception(Path(s.inception)).to(device)
        weights["inception"] = f"{origin(Path(s.inception))}, {weights_sha256(inception)}"
    if "paired" in wanted:
        perceptual = load_lpips(s.lpips_net, Path(s.lpips_weights) if s.lpips_weights else None)
        weights[f"lpips_{s.lpips_net}"] = weights_sha256(perceptual.network)
        perceptual = perceptual.to(device)
    return Networks(i3d, inception, s.side, s.images_per_clip), perceptual, weights


def distance(kind: str, seen: dict[str, Seen]) -> dict[str, Any]:
    """A Frechet distance with its interval, curve and floors."""
    real, fake = (seen[name].features(kind) for name in ("real", "fake"))
    frozen = seen["real"].features(kind, frozen=True)
    first, second = frechet.halves(real)
    count = min(len(first), len(second), len(fake))
    found = frechet.curve(real, fake)
    return {
        **frechet.estimate(real, fake).plain(),
        "num_real": len(real),
        "num_fake": len(fake),
        "num_features": int(real.vectors.shape[1]),
        "curve": found,
        "floors": {
            "copy_first_frame": frechet.estimate(real, frozen).plain(),
            "real_other_half": frechet.estimate(first, second).plain(),
        },
        "fake_at_half": {"num": count, "value": frechet.at_count(real, fake, count)},
    }


def alone(seen: dict[str, Seen]) -> dict[str, Any]:
    """Scores of each folder by itself, means over clips."""
    return {
        name: {
            side: mean_over_drives(one.alone[name], one.units).plain() for side, one in seen.items()
        }
        for name in seen["real"].alone
    }


def duplicates(subject: Subject, seen: dict[str, Seen]) -> dict[str, Any]:
    """Near-duplicates, with names in place of numbers."""
    real, fake = subject.clips
    found = near_duplicates(seen["real"].prints, seen["fake"].prints, (real.names, fake.names))
    sides = {"fake_of_real": (fake, real), "within_fake": (fake, fake), "within_real": (real, real)}
    for name, (a, b) in sides.items():
        found[name]["pairs"] = [
            {"ratio": r, "clip": a.ids[i], "other": b.ids[j]} for r, i, j in found[name]["pairs"]
        ]
    return found


def paired(subject: Subject, perceptual: PerceptualDistance | None) -> dict[str, Any]:
    """Scores of the pairs by horizon."""
    horizon = subject.horizon
    assert isinstance(horizon, Horizon)
    names = [fake.name for _, fake in subject.pairs]
    scores = pair_scores(subject.pairs, horizon, perceptual)
    result = summary(scores, horizon, names)
    flicker = added_flicker(subject.pairs, horizon)
    return result | {"added_flicker": mean_over_drives(flicker, names).plain()}
