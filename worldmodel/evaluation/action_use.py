"""Action use: what wrong actions cost in bits, fully teacher-forced."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.scores import score_windows
from worldmodel.windows import TokenClip, TokenWindows

TRUE = "true"


def shuffled(actions: Float[Tensor, "clip step action"]) -> Float[Tensor, "clip step action"]:
    """Gives every clip the actions of another one, in one random cycle."""
    order = torch.randperm(len(actions), generator=torch.Generator().manual_seed(0))
    return actions[order.roll(1)][order.argsort()]


def held(actions: Float[Tensor, "clip step action"]) -> Float[Tensor, "clip step action"]:
    """Repeats the first action of every clip."""
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
        variants: actions of all clips by name; None: `VARIANTS`. One clip has no "shuffled".

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
    """Mean change of bits per token under each variant of wrong actions.

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
    """The actions `lag` rows after those of the windows; beyond a drive, its end row repeats.

    A model that costs least at a lag other than 0 was trained on shifted actions.
    """
    by_id, found = {drive.id: drive for drive in windows.drives}, []
    for index in ids:
        window = windows.describe(index)
        actions, (first, last) = by_id[window["drive"]].actions, window["steps"]
        rows = np.arange(first, last + 1) + lag
        found.append(torch.from_numpy(actions[rows.clip(0, len(actions) - 1)]))
    return torch.stack(found)
