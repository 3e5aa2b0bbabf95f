"""A video decoder beside the tokenizer's own decoder, on the same tokens of recorded clips."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drives.clips.preprocessing import to_pixels, to_uint8
from drives.drive import Drive
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import flicker, psnr
from training.errors import BadInput
from training.loading.spread import spread
from training.watch.clock import now
from worldmodel.evaluation.videos.pixels import flicker_alone, sharpness
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.motion.matching import motion, warp_error
from worldmodel.video_decoder.networks.config import INTERPOLATION

FOLLOWS = 4.0  # levels: pixels of the recording that differ less along the flow are compared
Clips = Float[Tensor, "clip time 3 h w"]


def clips_of(
    drives: Sequence[Drive], tokenizer: Tokenizer, num_clips: int, num_frames: int
) -> tuple[Clips, list[str]]:
    """Clips in [-1, 1] spread evenly over the drives, and drive@frame of each.

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
    names = [f"{drive.id}@{start}" for drive, start in chosen]
    return to_pixels(torch.stack(frames)), names


class VideoJudge:
    """Scores videos of some recorded clips.

    Args:
        real: the recorded frames.
    """

    def __init__(self, real: Clips, perceptual: PerceptualDistance | None) -> None:
        self.real, self.perceptual = real, perceptual
        self.motion = [motion(clip) for clip in real]

    @torch.no_grad()
    def scores(self, made: Clips, which: slice = slice(None)) -> dict[str, float]:
        """Means over the clips.

        psnr (dB) and lpips against the recording; flicker (wrong change from frame to frame),
        shimmer (change where the recording stands still), jitter (second difference over time),
        warp (`warp_error`), all in 8-bit levels; sharpness as a multiple of the recording's.

        Args:
            which: frames of each clip whose psnr, lpips and sharpness are taken.
        """
        found: dict[str, list[float]] = {}
        for clip, real, (flow, error) in zip(made, self.real, self.motion, strict=True):
            fake, there = clip[which], real[which]
            pixels, recorded = (to_uint8(x).movedim(1, -1).cpu() for x in (fake, there))
            wrong, still = flicker(clip, real)
            values = {
                "psnr": psnr(fake, there).mean(),
                "flicker": wrong,
                "shimmer": still,
                "jitter": flicker_alone(to_uint8(clip).movedim(1, -1).cpu()),
                "warp": warp_error(clip, flow, error <= FOLLOWS),
                "sharpness": sharpness(pixels).mean() / sharpness(recorded).mean(),
            }
            if self.perceptual is not None:
                values["lpips"] = self.perceptual(fake, there).mean()
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        return {name: float(np.nanmean(values)) for name, values in found.items()}


def compare(
    decoder: TokenVideoDecoder, judge: VideoJudge
) -> tuple[list[dict[str, Any]], dict[str, Clips]]:
    """Rows of scores, and the videos by name.

    Rows at the rate of the data: the recording itself, the tokenizer's decoder, the video decoder.
    Rows of every second grid, brought to that rate: the decoder's frames repeated, blended, and
    interpolated by it; psnr, lpips and sharpness are those of the frames between.
    """
    real = judge.real
    tokens = decoder.tokenizer.encode(real)
    rows, videos = [], {"recorded": real}

    def add(rate: str, name: str, make: Callable[[], Clips], which: slice = slice(None)) -> Clips:
        began = now(str(real.device))
        made = make().clamp(-1, 1)
        seconds = now(str(real.device)) - began
        per_frame = seconds / (real.shape[0] * real.shape[1])
        row = {"rate": rate, "name": name, **judge.scores(made, which)}
        rows.append(row | {"seconds_per_frame": per_frame})
        videos[f"{rate} {name}"] = made
        return made

    add("same", "recorded", lambda: real)
    add("same", "tokenizer", lambda: decoder.tokenizer.decode(tokens))
    add("same", "video decoder", lambda: decoder.decode(tokens))
    spacings = decoder.network.config.spacings
    if real.shape[1] % 2 == 0 or 2 not in spacings:
        return rows, videos
    between, half = slice(1, None, 2), tokens[:, ::2]
    kept = decoder.decode(half, decoder.spec.fps / 2)
    add("doubled", "repeated", lambda: repeated(kept), between)
    add("doubled", "blended", lambda: blended(kept), between)
    if INTERPOLATION in decoder.network.config.tasks:
        add("doubled", "interpolated", lambda: decoder.upsample(kept, half), between)
    return rows, videos


def repeated(frames: Clips) -> Clips:
    """2N - 1 frames of N: each but the last one twice."""
    return frames.repeat_interleave(2, dim=1)[:, :-1]


def blended(frames: Clips) -> Clips:
    """2N - 1 frames of N: the mean of two neighbours between them."""
    between = (frames[:, :-1] + frames[:, 1:]) / 2
    joined = torch.stack([frames[:, :-1], between], dim=2).flatten(1, 2)
    return torch.cat([joined, frames[:, -1:]], dim=1)
