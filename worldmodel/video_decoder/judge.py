"""A video decoder beside the tokenizer's own decoder, on the same tokens of recorded clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from drives.clips.preprocessing import to_pixels, to_uint8
from drives.drive import Drive
from drives.versions import recording_of
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import psnr
from training.errors import BadInput
from training.loading.spread import spread
from training.watch.clock import now
from worldmodel.evaluation.videos.pixels import beside_real, flicker_alone
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.distances import VideoDistances
from worldmodel.video_decoder.motion.matching import motion, warp_error
from worldmodel.video_decoder.networks.config import INTERPOLATION

FOLLOWS = 4.0  # levels: pixels of the recording that differ less along the flow are compared
Clips = Float[Tensor, "clip time 3 h w"]


@dataclass(frozen=True)
class RecordedClips:
    """Recorded clips.

    Attributes:
        frames: in [-1, 1].
        places: the drive and the first frame of each.
    """

    frames: Clips
    places: Sequence[tuple[Drive, int]]

    @property
    def names(self) -> list[str]:
        """drive@first frame of each."""
        return [f"{drive.id}@{start}" for drive, start in self.places]

    @property
    def drives(self) -> list[str]:
        """The recording of each; versions of one drive are no two samples."""
        return [recording_of(drive.id) for drive, _ in self.places]

    def actions(self, names: Sequence[str]) -> Float[Tensor, "clip time action"]:
        """The named columns; row t leads to frame t + 1.

        Raises:
            BadInput: a drive lacks one.
        """
        length = self.frames.shape[1]
        rows = [drive.select_actions(names)[start : start + length] for drive, start in self.places]
        return torch.from_numpy(np.stack(rows).astype(np.float32))


def clips_of(
    drives: Sequence[Drive], tokenizer: Tokenizer, num_clips: int, num_frames: int
) -> RecordedClips:
    """Clips spread evenly over the drives.

    Raises:
        BadInput: no drive is long enough.
    """
    places = [
        (drive, start)
        for drive in drives
        for start in range(0, len(drive.actions) - num_frames + 1, num_frames)
    ]
    if not places:
        longest = max((len(drive.actions) for drive in drives), default=0)
        raise BadInput(
            f"clip_frames={num_frames}: the longest drive of the split has {longest} frames; give "
            "fewer"
        )
    chosen = [places[index] for index in spread(len(places), num_clips)]
    frames = [
        tokenizer.fit(np.stack(list(drive.frames(start, start + num_frames))))
        for drive, start in chosen
    ]
    return RecordedClips(to_pixels(torch.stack(frames)), chosen)


class VideoJudge:
    """Scores videos of some recorded clips.

    Args:
        real: the recorded frames.
        distances: of whole videos to these, which rows then have as well.
    """

    def __init__(
        self,
        real: Clips,
        perceptual: PerceptualDistance | None,
        distances: VideoDistances | None = None,
    ) -> None:
        self.real, self.perceptual, self.distances = real, perceptual, distances
        self.motion = [motion(clip) for clip in real]

    @torch.no_grad()
    def scores(self, made: Clips, which: slice = slice(None)) -> dict[str, Any]:
        """Means over the clips.

        psnr (dB) and lpips against the recording; flicker (wrong change from frame to frame),
        shimmer (change where the recording stands still), jitter (second difference over time),
        warp (`warp_error`), all in 8-bit levels; sharpness as a multiple of the recording's. The
        distances are of the whole clips.

        Args:
            which: frames of each clip whose psnr, lpips and sharpness are taken.
        """
        found: dict[str, list[float]] = {}
        for clip, real, (flow, error) in zip(made, self.real, self.motion, strict=True):
            fake, there = clip[which], real[which]
            values = {
                **beside_real(clip, real),
                "psnr": psnr(fake, there).mean(),
                "jitter": flicker_alone(to_uint8(clip).movedim(1, -1).cpu()),
                "warp": warp_error(clip, flow, error <= FOLLOWS),
                "sharpness": beside_real(fake, there)["sharpness"],
            }
            if self.perceptual is not None:
                values["lpips"] = self.perceptual(fake, there).mean()
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        means: dict[str, Any] = {n: float(np.nanmean(values)) for n, values in found.items()}
        far = {} if self.distances is None else self.distances.of(made)
        intervals = {name: [one.low, one.high] for name, one in far.items()}
        means |= {name: one.value for name, one in far.items()}
        return means | ({"intervals": intervals} if far else {})


class ScoreRows:
    """The table of a judge, and the videos that its rows are of.

    Attributes:
        key: what a group of rows has in common.
        videos: as many last frames of each as the judge has.
    """

    def __init__(self, judge: VideoJudge, key: str = "rate") -> None:
        self.judge, self.key = judge, key
        self.rows: list[dict[str, Any]] = []
        self.videos = {"recorded": judge.real}

    @cached_property
    def distances(self) -> dict[str, Any]:
        """As of `VideoDistances.facts`; empty where the judge has none."""
        return {} if self.judge.distances is None else self.judge.distances.facts()

    def add(
        self, group: str, name: str, make: Callable[[], Clips], which: slice = slice(None)
    ) -> Clips:
        """Judge a video; seconds are those per frame that was made.

        Args:
            group: its value of `key`.
            which: as of `VideoJudge.scores`.
        """
        device, real = str(self.judge.real.device), self.judge.real
        began = now(device)
        made = make().clamp(-1, 1)
        seconds = (now(device) - began) / (made.shape[0] * made.shape[1])
        made = made[:, -real.shape[1] :]
        scores = self.judge.scores(made, which)
        self.rows.append({self.key: group, "name": name, **scores, "seconds_per_frame": seconds})
        self.videos[f"{group} {name}"] = made
        return made


def compare(
    decoder: TokenVideoDecoder, judge: VideoJudge, tokens: Int[Tensor, "clip time gh gw"]
) -> ScoreRows:
    """Rows of the decoders on the tokens of the recording.

    At the rate of the data: the recording itself, the tokenizer's decoder, the video decoder. Of
    every second grid, brought to that rate: the decoder's frames repeated, blended, and
    interpolated by it; psnr, lpips and sharpness are those of the frames between.

    Args:
        tokens: of the recording.
    """
    real, rows = judge.real, ScoreRows(judge)
    rows.add("same", "recorded", lambda: real)
    rows.add("same", "tokenizer", lambda: decoder.tokenizer.decode(tokens))
    rows.add("same", "video decoder", lambda: decoder.decode(tokens))
    spacings = decoder.network.config.spacings
    if real.shape[1] % 2 == 0 or 2 not in spacings:
        return rows
    between, half = slice(1, None, 2), tokens[:, ::2]
    kept = decoder.decode(half, decoder.spec.fps / 2)
    rows.add("doubled", "repeated", lambda: repeated(kept), between)
    rows.add("doubled", "blended", lambda: blended(kept), between)
    if INTERPOLATION in decoder.network.config.tasks:
        rows.add("doubled", "interpolated", lambda: decoder.upsample(kept, half), between)
    return rows


def repeated(frames: Clips) -> Clips:
    """2N - 1 frames of N: each but the last one twice."""
    return frames.repeat_interleave(2, dim=1)[:, :-1]


def blended(frames: Clips) -> Clips:
    """2N - 1 frames of N: the mean of two neighbours between them."""
    between = (frames[:, :-1] + frames[:, 1:]) / 2
    joined = torch.stack([frames[:, :-1], between], dim=2).flatten(1, 2)
    return torch.cat([joined, frames[:, -1:]], dim=1)
