"""Pairs of videos with one name: scores of frames by horizon, beside a copy floor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from drives.clips.preprocessing import to_pixels
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import flicker
from worldmodel.evaluation.intervals import difference, mean_over_drives
from worldmodel.evaluation.videos.folders import VideoFile
from worldmodel.evaluation.videos.pixels import against_real

FAKE, COPY = "fake", "floor_copy_last"


@dataclass(frozen=True)
class Horizon:
    """The frames at which pairs are compared.

    Attributes:
        frames: their indices in a video; all lie after the prompt.
        seconds: time since the prompt's last frame.
    """

    num_prompt: int
    frames: tuple[int, ...]
    seconds: tuple[float, ...]


def pairs_of(
    real: Sequence[VideoFile], fake: Sequence[VideoFile]
) -> list[tuple[VideoFile, VideoFile]]:
    """Videos with equal names."""
    known = {video.name: video for video in real}
    return [(known[video.name], video) for video in fake if video.name in known]


def common_horizon(
    pairs: Sequence[tuple[VideoFile, VideoFile]], num_prompt: int, points: int, max_s: float
) -> Horizon | str:
    """Evenly spread frames that every pair has, or the reason why there are none."""
    rates = {round(video.rate, 6) for pair in pairs for video in pair}
    if max(rates) > 1.01 * min(rates):
        return "paired videos run at different rates; give fps=RATE"
    rate = max(rates)
    shortest = min((video for pair in pairs for video in pair), key=lambda video: video.num_frames)
    last = min(shortest.num_frames - 1, num_prompt - 1 + int(max_s * rate + 1e-6))
    if last < num_prompt:
        return (
            f"{shortest.name} has {shortest.num_frames} frames, nothing after the prompt of "
            f"prompt_frames={num_prompt}"
        )
    frames = np.unique(np.linspace(num_prompt, last, points).round().astype(int))
    seconds = tuple(float(f - num_prompt + 1) / rate for f in frames)
    return Horizon(num_prompt, tuple(frames.tolist()), seconds)


def pair_scores(
    pairs: Sequence[tuple[VideoFile, VideoFile]],
    horizon: Horizon,
    perceptual: PerceptualDistance | None,
) -> dict[str, dict[str, np.ndarray]]:
    """Every score as [pair horizon], for the fake videos and the copy floor."""
    rows: dict[str, dict[str, list[np.ndarray]]] = {FAKE: {}, COPY: {}}
    for real, fake in tqdm(pairs, "pairs", unit="pair", leave=False):
        chosen = (horizon.num_prompt - 1, *horizon.frames)
        truth = torch.from_numpy(real.read(chosen))
        pred = torch.from_numpy(fake.read(horizon.frames))
        last, truth = truth[:1], truth[1:]
        for row, shown in ((FAKE, pred), (COPY, last.expand_as(truth))):
            for name, values in against_real(shown, truth, perceptual).items():
                rows[row].setdefault(name, []).append(values.double().numpy())
    return {row: {k: np.stack(v) for k, v in scores.items()} for row, scores in rows.items()}


def added_flicker(
    pairs: Sequence[tuple[VideoFile, VideoFile]], horizon: Horizon, num_frames: int = 16
) -> list[float]:
    """Flicker of each fake video beyond its real one's, in 8-bit levels.

    Counts the first `num_frames` frames after the prompt; NaN where sizes differ, because scaling
    alters it.
    """
    start, found = horizon.num_prompt, []
    stop = min(start + num_frames, horizon.frames[-1] + 1)
    for real, fake in pairs:
        if real.size != fake.size or stop - start < 2:
            found.append(float("nan"))
            continue
        a, b = (torch.from_numpy(v.read(range(start, stop))).movedim(-1, 1) for v in (fake, real))
        found.append(float(flicker(to_pixels(a), to_pixels(b))[0]))
    return found


def summary(
    scores: dict[str, dict[str, np.ndarray]], horizon: Horizon, names: Sequence[str]
) -> dict[str, Any]:
    """Means over pairs with intervals: in total, by horizon, and the difference to the floor."""
    result: dict[str, Any] = {"num_pairs": len(names), "seconds": list(horizon.seconds)}
    result["mean"] = {
        row: {m: mean_over_drives(v.mean(1), names).plain() for m, v in scores[row].items()}
        for row in scores
    }
    result["by_horizon"] = {
        row: {
            metric: [mean_over_drives(v, names).plain() for v in values.T]
            for metric, values in scores[row].items()
        }
        for row in scores
    }
    result["over_floor"] = {
        metric: difference(values.mean(1), scores[COPY][metric].mean(1), names).plain()
        for metric, values in scores[FAKE].items()
    }
    return result
