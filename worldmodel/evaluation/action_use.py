"""Use of actions by a world model: the cost of wrong actions, fully teacher-forced."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.data import TokenClip
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.scores import teacher_forced


def shuffled(actions: Float[Tensor, "clip step action"]) -> Float[Tensor, "clip step action"]:
    """Every clip gets the actions of another clip, in one random cycle."""
    order = torch.randperm(len(actions), generator=torch.Generator().manual_seed(0))
    return actions[order.roll(1)][order.argsort()]


def held(actions: Float[Tensor, "clip step action"]) -> Float[Tensor, "clip step action"]:
    """Every clip repeats its first action."""
    return actions[:, :1].expand_as(actions)


VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffled": shuffled,
    "held": held,
    "zeroed": torch.zeros_like,
    "halved": lambda actions: actions * 0.5,
    "x1.5": lambda actions: actions * 1.5,
}


def action_use(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    texts: Texts | None = None,
    true: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Change of bits per token under wrong actions, for every variant.

    It is 0 for a model that ignores actions.

    Args:
        texts: encodes captions.
        true: `teacher_forced` of the same clips, where it is known already.

    Returns:
        Nothing where the network reads no actions; without "shuffled" where there is one clip.
    """
    if not network.conditioned:
        return {}
    batches = list(clips)
    actions = torch.cat([batch.actions for batch in batches])
    sizes = [len(batch.actions) for batch in batches]
    start = (true or teacher_forced(network, batches, device, texts))["bits_per_token"]
    changes = {}
    for name, change in VARIANTS.items():
        if name == "shuffled" and len(actions) == 1:
            continue
        parts = change(actions).split(sizes)
        changed = [replace(b, actions=part) for b, part in zip(batches, parts, strict=True)]
        scores = teacher_forced(network, changed, device, texts, f"{name} actions")
        changes[name] = scores["bits_per_token"] - start
    return changes
