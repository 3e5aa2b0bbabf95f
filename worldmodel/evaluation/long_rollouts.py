"""Long rollouts: measures of every clip against the horizon."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.text import TextContext
from worldmodel.evaluation.intervals import Estimate, bootstrap


@torch.no_grad()
def bits_by_horizon(
    network: Dynamics,
    tokens: Int[Tensor, "clip time height width"],
    actions: Float[Tensor, "clip step action"] | None,
    prompt_steps: int,
    captions: TextContext | None = None,
) -> Float[np.ndarray, "clip horizon"]:
    """Bits per token of the frames after the prompt, real or imagined, given the frames before.

    Longer clips are read in windows of the context; all but the first predict their second half.
    """
    context, time = network.config.context_steps, tokens.shape[1]
    hop, start, done = max(1, context // 2), 0, prompt_steps
    found = []
    while done < time:
        end = min(start + context, time)
        start = max(0, end - context)
        rows = None if actions is None else actions[:, start:end]
        text: dict[str, Any] = {} if captions is None else {"captions": captions.from_step(start)}
        nats = network.score(tokens[:, start:end], rows, **text).nats.mean(-1)
        found.append(nats[:, done - start :].double().cpu())
        start, done = start + hop, end
    return torch.cat(found, 1).numpy() / math.log(2)


def token_counts(
    tokens: Int[Tensor, "clip time height width"], vocab_size: int, steps: int
) -> Float[np.ndarray, "clip part vocab"]:
    """Count of every token per part of `steps` time steps; a rest is left out."""
    parts = tokens.shape[1] // steps
    whole = tokens[:, : parts * steps].reshape(len(tokens), parts, -1).cpu().numpy()
    counts = [[np.bincount(part, minlength=vocab_size) for part in clip] for clip in whole]
    return np.array(counts, np.float64).reshape(len(tokens), parts, vocab_size)


def histogram_distances(
    counts: Float[np.ndarray, "clip part vocab"],
    others: Float[np.ndarray, "clip part vocab"],
    drives: Sequence[str],
) -> list[Estimate]:
    """Total variation (0 to 1) between the tokens of all clips and of all others, by part.

    Few tokens differ by chance alone: compare with real clips against other real ones.
    """

    def distance(part: int, clips: np.ndarray) -> float:
        p, q = (x[clips, part].sum(0) for x in (counts, others))
        return float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)

    return [bootstrap(partial(distance, part), drives) for part in range(counts.shape[1])]


def seconds_until_doubled(
    excess: Float[np.ndarray, "clip horizon"], seconds: Sequence[float], drives: Sequence[str]
) -> Estimate:
    """Time at which the mean excess first is twice the first one, interpolated linearly.

    The last horizon if it never is; no value without excess at the first horizon.
    """

    def when(clips: np.ndarray) -> float:
        curve = excess[clips].mean(0)
        if curve[0] <= 0:
            return np.nan
        over = np.flatnonzero(curve >= 2 * curve[0])
        if not len(over):
            return seconds[-1]
        right = over[0]
        share = (2 * curve[0] - curve[right - 1]) / (curve[right] - curve[right - 1])
        return float(seconds[right - 1] + share * (seconds[right] - seconds[right - 1]))

    return bootstrap(when, drives, 1000)


def plain(estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
    return [estimate.plain() for estimate in estimates]
