"""A network that reads actions, asked without them: a mixture over the actions of the train drives.

    p(x_t | past) = sum_k w_t(k) p(x_t | past, a_k)

w_t is what the past tells of the action: a hidden Markov model over the typical actions a_k, whose
moves are those of the train drives, and whose evidence is the network's own likelihood of the
frames so far (forward filter; Rabiner 1989, equation 20). Where actions are independent of the
past, w_t is how often each comes, and the mixture is exact if there are as many as the centres.

A network that reads no action must find the mixture by itself: it plateaus far above it for long.
The mixture is a bound from above on the cross entropy that needs no training.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.data import TokenClip
from worldmodel.dynamics.base import Dynamics

SAMPLE = 4096  # pairs of action rows that the centres stand for
Rows = Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Centres:
    """Typical actions.

    Attributes:
        rows: one action row for each.
        shares: how often each comes.
        moves: how often each is followed by each other; rows sum to 1.
    """

    rows: Float[Tensor, "centre column"]
    shares: Float[Tensor, " centre"]
    moves: Float[Tensor, "centre centre"]


def centres_of(before: Rows, after: Rows, num: int, seed: int) -> Centres:
    """At most `num` typical actions; all of them if they are few.

    Args:
        before, after: action rows of the train drives, and those that follow them. All columns
            should be of one scale.
    """
    after = np.asarray(after, np.float64)
    rows = np.unique(after, axis=0)
    if len(rows) > num:
        rows = kmeans2(after, num, minit="++", seed=seed)[0]
    counts = np.bincount(vq(after, rows)[0], minlength=len(rows))
    rows, counts = rows[counts > 0], counts[counts > 0]
    shares = counts / counts.sum()
    first, second = (vq(np.asarray(part, np.float64), rows)[0] for part in (before, after))
    moves = np.zeros((len(rows), len(rows)))
    np.add.at(moves, (first, second), 1)
    moves += shares  # one more of each, so that no move is impossible
    moves /= moves.sum(1, keepdims=True)
    parts = (torch.from_numpy(part) for part in (rows.astype(np.float32), shares, moves))
    return Centres(*parts)


@torch.no_grad()
def mixture_nats(
    network: Dynamics,
    clips: Iterable[TokenClip],
    centres: Centres,
    device: str,
    texts: Texts | None = None,
    first: int = 1,
) -> Float[Tensor, "window step"]:
    """Nats of whole frames under the mixture, at time steps `first`..; on the CPU in float64.

    Args:
        texts: encodes captions; None runs the network without.
        first: first time step whose scores count as evidence.
    """
    network.eval()
    found = []
    for batch in clips:
        clip = batch.to(device)
        captions: dict[str, Any] = texts.caption_kwargs(clip.text, device) if texts else {}
        under = []
        for row in centres.rows.to(device):
            asked = replace(clip, actions=row.expand_as(clip.actions).contiguous())
            scores = network.score(asked.tokens, asked.actions, **captions)
            under.append(scores.nats[:, first:].double().sum(-1).cpu())
        found.append(filtered(torch.stack(under), centres))
    return torch.cat(found)


def filtered(
    nats: Float[Tensor, "centre window step"], centres: Centres
) -> Float[Tensor, "window step"]:
    """Nats of the mixture, from those under every centre."""
    weights = centres.shares.log()[:, None].expand(nats.shape[:2])
    mixed = []
    for step in nats.unbind(-1):
        joint = weights - step
        mixed.append(-torch.logsumexp(joint, 0))
        seen = torch.softmax(joint, 0)  # the action that led to this frame
        weights = (centres.moves.T @ seen).log()
    return torch.stack(mixed, -1)
