"""Fully teacher-forced scores: every token is predicted from the real past."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.dynamics.base import Dynamics
from worldmodel.windows import TokenClip

TOP = (1, 5, 50)  # k of the top-k accuracies
BINS = 10  # of the confidence


@dataclass(frozen=True)
class WindowScores:
    """Scores of windows, on the CPU in float64, at the time steps that count in the loss.

    Attributes:
        nats: cross entropy of every window and time step, a mean over cells.
        correct: share of cells whose most probable token is the real one.
        by_cell: mean cross entropy of every cell of the grid.
        top: by k, share of a window's tokens among the k most probable; empty for factors.
        calibration: per bin of the confidence: tokens, summed confidence, correct tokens.
    """

    nats: Float[Tensor, "window step"]
    correct: Float[Tensor, "window step"]
    by_cell: Float[Tensor, "height width"]
    top: dict[int, Float[Tensor, " window"]]
    calibration: Float[Tensor, "3 bin"]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3)."""
        num, confidence, correct = self.calibration
        return float(((confidence - correct).abs().sum() / num.sum()).item())


@torch.no_grad()
def score_windows(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    texts: Texts | None = None,
    title: str = "teacher-forced",
    drop_actions: bool = False,
) -> WindowScores:
    """Cross entropy, accuracy and calibration of all real tokens that count.

    Args:
        texts: encodes captions; None runs the model without captions.
        drop_actions: give "no action" in place of the actions.
    """
    first = network.first_target_step
    nats, correct, cells, sizes = [], [], [], []
    top: dict[int, list[Tensor]] = {k: [] for k in TOP if k > 1}
    calibration = torch.zeros(3, BINS, dtype=torch.float64)
    for batch in tqdm(clips, title, unit="batch"):
        clip = batch.to(device)
        captions: dict[str, Any] = texts.caption_kwargs(clip.text, device) if texts else {}
        actions = clip.actions if network.num_actions else None
        drop = clip.tokens.new_ones(len(clip.tokens), dtype=torch.bool) if drop_actions else None
        scores = network.score(clip.tokens, actions, drop, **captions)
        own, right = scores.nats[:, first:].double().cpu(), scores.correct[:, first:].cpu()
        nats.append(own.mean(-1))
        correct.append(right.double().mean(-1))
        cells.append(own.mean((0, 1)) * len(own))
        sizes.append(len(own))
        sure = scores.confidence[:, first:].double().cpu().flatten()
        bins = (sure * BINS).long().clamp(max=BINS - 1)
        rows = torch.stack([torch.ones_like(sure), sure, right.flatten().double()])
        calibration.index_add_(1, bins, rows)
        if (rank := scores.rank) is not None:
            for k, shares in top.items():
                shares.append((rank[:, first:] < k).double().mean((1, 2)).cpu())
    height, width = network.spec.grid[-2:]
    return WindowScores(
        torch.cat(nats),
        torch.cat(correct),
        (torch.stack(cells).sum(0) / sum(sizes)).reshape(-1, height, width).mean(0),
        {k: torch.cat(shares) for k, shares in top.items() if shares},
        calibration,
    )


def teacher_forced(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    texts: Texts | None = None,
    title: str = "teacher-forced",
) -> dict[str, Any]:
    """Means of `score_windows`.

    Returns:
        nats_per_token, bits_per_token, accuracy (share of tokens whose most probable value
        is correct), and the lists bits_by_step, accuracy_by_step (time step t sees t frames).
    """
    scores = score_windows(network, clips, device, texts, title)
    nats, correct = scores.nats.mean(0), scores.correct.mean(0)
    return {
        "nats_per_token": nats.mean().item(),
        "bits_per_token": nats.mean().item() / math.log(2),
        "accuracy": correct.mean().item(),
        "bits_by_step": (nats / math.log(2)).tolist(),
        "accuracy_by_step": correct.tolist(),
    }
