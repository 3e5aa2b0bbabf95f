"""A probe with actions, asked without them: a mixture over the actions of the train drives.

    p(x | past) = sum_k w_k p(x | past, a_k)

A network that reads no action must find the mixture by itself: it plateaus far above it for long.
The mixture is a bound from above on the cross entropy that needs no training. Where actions are
independent of the past and as many as the centres, it is exact.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.cluster.vq import kmeans2
from torch import Tensor

from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.attainable.windows import HorizonWindows

SAMPLE = 4096  # rows of the train drives that the centres stand for


def centres_of(
    train: HorizonWindows, num: int, seed: int
) -> tuple[Float[Tensor, "centre column"], Float[Tensor, " centre"]]:
    """Typical action rows of the train windows, and how often each comes; all of them if few."""
    clip = train.batch(train.spread(SAMPLE))
    rows = clip.actions[:, -2].numpy().astype(np.float64)
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    if len(unique) > num:
        unique, labels = kmeans2(rows, num, minit="++", seed=seed)
        counts = np.bincount(labels, minlength=len(unique))
    kept = counts > 0
    shares = torch.from_numpy(counts[kept] / counts.sum())
    return torch.from_numpy(unique[kept]).float(), shares


@torch.no_grad()
def mixture_bits(
    probe: Dynamics,
    windows: HorizonWindows,
    ids: list[int],
    centres: Float[Tensor, "centre column"],
    shares: Float[Tensor, " centre"],
    device: str,
    batch_size: int = 32,
) -> Float[np.ndarray, " window"]:
    """Bits of the last frame of every window, under the mixture."""
    probe.eval()
    found = []
    for start in range(0, len(ids), batch_size):
        clip = windows.batch(ids[start : start + batch_size], with_actions=False)
        nats = []
        for centre in centres:
            rows = clip.actions.clone()
            rows[:, :-1] = centre
            asked = replace(clip, actions=rows).to(device)
            scores = probe.score(asked.tokens, asked.actions)
            nats.append(scores.nats[:, -1].double().sum(-1).cpu())
        weighted = shares.log()[:, None] - torch.stack(nats)
        found.append(-torch.logsumexp(weighted, 0))
    return torch.cat(found).numpy() / math.log(2)
