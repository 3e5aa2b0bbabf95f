"""Use of actions by a world model: the cost of wrong actions, fully teacher-forced."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.data import TokenClip, TokenWindows
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.scores import score_windows

TRUE = "true"


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


def bits_by_window(
    network: Dynamics,
    clips: Sequence[TokenClip],
    device: str,
    texts: Texts | None = None,
    variants: Mapping[str, Float[Tensor, "clip step action"]] | None = None,
) -> dict[str, Float[np.ndarray, " clip"]]:
    """Bits per token of every clip under other actions.

    Args:
        texts: encodes captions.
        variants: the actions of all clips by name; None: those of `VARIANTS`, without "shuffled"
            where there is one clip.

    Returns:
        Nothing where the network reads no actions.
    """
    if not network.conditioned:
        return {}
    sizes = [len(batch.actions) for batch in clips]
    actions = torch.cat([batch.actions for batch in clips])
    if variants is None:
        asked = {k: v for k, v in VARIANTS.items() if k != "shuffled" or len(actions) > 1}
        variants = {name: change(actions) for name, change in asked.items()}
    found = {}
    for name, changed in variants.items():
        parts = zip(clips, changed.split(sizes), strict=True)
        batches = [replace(batch, actions=part) for batch, part in parts]
        scores = score_windows(network, batches, device, texts, f"{name} actions")
        found[name] = scores.nats.mean(1).numpy() / math.log(2)
    return found


def action_use(
    network: Dynamics, clips: Iterable[TokenClip], device: str, texts: Texts | None = None
) -> dict[str, float]:
    """Change of bits per token under wrong actions, for every variant; a mean over all clips.

    It is 0 for a model that ignores actions.

    Args:
        texts: encodes captions.

    Returns:
        Nothing where the network reads no actions; without "shuffled" where there is one clip.
    """
    batches = list(clips)
    changed = bits_by_window(network, batches, device, texts)
    if not changed:
        return {}
    actions = torch.cat([batch.actions for batch in batches])
    true = bits_by_window(network, batches, device, texts, {TRUE: actions})[TRUE]
    return {name: float((bits - true).mean()) for name, bits in changed.items()}


def lagged(
    windows: TokenWindows, ids: Sequence[int], lag: int
) -> Float[Tensor, "clip step action"]:
    """The actions `lag` rows later than those of the windows; a drive's first and last row hold on.

    Where a model costs least at another lag than 0, its data's actions were shifted otherwise.
    """
    by_id, found = {drive.id: drive for drive in windows.drives}, []
    for index in ids:
        window = windows.describe(index)
        actions, (first, last) = by_id[window["drive"]].actions, window["steps"]
        rows = np.arange(first, last + 1) + lag
        found.append(torch.from_numpy(actions[rows.clip(0, len(actions) - 1)]))
    return torch.stack(found)
