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
    """Cross entropy and accuracy of all real tokens that count, in total and by time step.

    Args:
        texts: encodes captions; None runs the model without captions.
    Returns:
        nats_per_token, bits_per_token, accuracy (share of tokens whose most probable value
        is correct), and the lists bits_by_step, accuracy_by_step (time step t sees t frames).
    """
    nats: list[Float[Tensor, "batch step"]] = []
    correct: list[Float[Tensor, "batch step"]] = []
    for batch in tqdm(clips, title, unit="batch"):
        clip = batch.to(device)
        captions: dict[str, Any] = texts.caption_kwargs(clip.text, device) if texts else {}
        actions = clip.actions if network.num_actions else None
        scores = network.score(clip.tokens, actions, **captions)
        nats.append(scores.nats.mean(-1).cpu())
        correct.append(scores.correct.float().mean(-1).cpu())
    first = network.first_target_step
    nats_by_step = torch.cat(nats).mean(0)[first:]
    correct_by_step = torch.cat(correct).mean(0)[first:]
    return {
        "nats_per_token": nats_by_step.mean().item(),
        "bits_per_token": nats_by_step.mean().item() / math.log(2),
        "accuracy": correct_by_step.mean().item(),
        "bits_by_step": (nats_by_step / math.log(2)).tolist(),
        "accuracy_by_step": correct_by_step.tolist(),
    }
