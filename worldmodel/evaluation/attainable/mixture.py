"""A network that reads actions, asked without the newest: a mixture over typical actions.

    p(x | past) = sum_k w_k p(x | past, a_k)

w_k is how often the typical action a_k follows the one before in the train drives. The action that
was really there stands for the typical one nearest to it; so the mixture is at most -log w_k worse
than the true action, which is all that the action can tell at this resolution. Where there are as
many typical actions as actions, and each depends on the one before alone, the mixture is exact.

A network that reads no action must find the mixture by itself: it plateaus far above it for long.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.dynamics.base import Dynamics
from worldmodel.windows import TokenClip

SAMPLE = 4096  # pairs of action rows that the centres stand for
Rows = Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Centres:
    """Typical actions.

    Attributes:
        rows: one action row for each.
        scale: of every column; distances are in these.
        shares: how often each comes.
        moves: how often each is followed by each other; rows sum to 1.
    """

    rows: Float[Tensor, "centre column"]
    scale: Float[Tensor, " column"]
    shares: Float[Tensor, " centre"]
    moves: Float[Tensor, "centre centre"]

    def nearest(self, rows: Float[Tensor, "row column"]) -> Int[Tensor, " row"]:
        """Number of the typical action nearest to each row."""
        scale = self.scale.to(rows)
        return torch.cdist(rows / scale, self.rows.to(rows) / scale).argmin(-1)


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
    found = torch.from_numpy(rows.astype(np.float32))
    scale = torch.ones(found.shape[1])
    return Centres(found, scale, torch.from_numpy(shares), torch.from_numpy(moves))


@torch.no_grad()
def mixture_nats(
    network: Dynamics,
    clips: Iterable[TokenClip],
    centres: Centres,
    device: str,
    texts: Texts | None = None,
) -> Float[Tensor, " window"]:
    """Nats of the last frame of each window under the mixture; on the CPU in float64.

    Args:
        texts: encodes captions; None runs the network without.
    """
    network.eval()
    found = []
    for batch in clips:
        clip = batch.to(device)
        captions: dict[str, Any] = texts.caption_kwargs(clip.text, device) if texts else {}
        newest = clip.tokens.shape[1] - 2  # the row that leads to the last frame

        def last_nats(actions: Tensor, clip: TokenClip = clip, texts: Any = captions) -> Tensor:
            return network.score(clip.tokens, actions, **texts).nats[:, -1].double().sum(-1).cpu()

        true, own = last_nats(clip.actions), centres.nearest(clip.actions[:, newest].cpu())
        under = []
        for number, row in enumerate(centres.rows.to(device)):
            asked = clip.actions.clone()
            asked[:, newest] = row
            under.append(torch.where(own == number, true, last_nats(asked)))
        weights = centres.shares.expand(len(true), -1)
        if newest:
            weights = centres.moves[centres.nearest(clip.actions[:, newest - 1].cpu())]
        found.append(-torch.logsumexp(weights.T.log() - torch.stack(under), 0))
    return torch.cat(found)
