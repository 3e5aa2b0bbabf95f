"""Fully teacher-forced scores: every token is predicted from the real past."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.data import TokenClip
from worldmodel.dynamics.base import Dynamics


@torch.no_grad()
def teacher_forced(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    texts: Texts | None = None,
    title: str = "teacher-forced",
) -> dict[str, Any]:
    """Cross entropy and accuracy over all real tokens that count, and by time step.

    Args:
        texts: what captions are read through; without it, a model is told of none.
    Returns:
        nats_per_token, bits_per_token, accuracy (share of tokens whose most probable value
        is right), and the lists bits_by_step, accuracy_by_step (step t sees t frames).
    """
    nats: list[Float[Tensor, "batch step"]] = []
    hits: list[Float[Tensor, "batch step"]] = []
    for batch in tqdm(clips, title, unit="batch"):
        clip = batch.to(device)
        said: dict[str, Any] = texts.said(clip.text, device) if texts else {}
        actions = clip.actions if network.num_actions else None
        scores = network.score(clip.tokens, actions, **said)
        nats.append(scores.nats.mean(-1).cpu())
        hits.append(scores.hits.float().mean(-1).cpu())
    first = network.first_target_step
    nats_by_step = torch.cat(nats).mean(0)[first:]
    hits_by_step = torch.cat(hits).mean(0)[first:]
    return {
        "nats_per_token": nats_by_step.mean().item(),
        "bits_per_token": nats_by_step.mean().item() / math.log(2),
        "accuracy": hits_by_step.mean().item(),
        "bits_by_step": (nats_by_step / math.log(2)).tolist(),
        "accuracy_by_step": hits_by_step.tolist(),
    }
