"""Scores of real tokens under a world model: cross entropy, rank and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenScores:
    """Scores of the real tokens, predicted from the real past (fully teacher-forced).

    Attributes:
        nats: cross entropy of every token.
        correct: whether the most probable token is the real one.
        confidence: probability of the most probable token.
        rank: how many tokens are more probable than the real one; None where a network predicts
            factors of its tokens, and so has no probability of each token.
    """

    nats: Float[Tensor, "batch time space"]
    correct: Bool[Tensor, "batch time space"]
    confidence: Float[Tensor, "batch time space"]
    rank: Int[Tensor, "batch time space"] | None

    def last(self) -> "TokenScores":
        """Those of the last frame."""
        rank = None if self.rank is None else self.rank[:, -1:]
        return TokenScores(self.nats[:, -1:], self.correct[:, -1:], self.confidence[:, -1:], rank)

    def merged(self, start: int) -> "TokenScores":
        """The frames from `start` on as one: the mean of their nats, the rest of the last one."""
        if start == self.nats.shape[1] - 1:
            return self
        nats = self.nats[:, start:].mean(dim=1, keepdim=True)
        newest = replace(self.last(), nats=nats)
        rank = None if self.rank is None else self.rank[:, :start]
        before = self.nats[:, :start], self.correct[:, :start], self.confidence[:, :start]
        return TokenScores.joined([TokenScores(*before, rank), newest])

    @staticmethod
    def joined(parts: Sequence["TokenScores"]) -> "TokenScores":
        """Scores of frames one after the other."""
        ranks = [part.rank for part in parts if part.rank is not None]
        return TokenScores(
            torch.cat([part.nats for part in parts], dim=1),
            torch.cat([part.correct for part in parts], dim=1),
            torch.cat([part.confidence for part in parts], dim=1),
            torch.cat(ranks, dim=1) if len(ranks) == len(parts) else None,
        )


@dataclass(frozen=True)
class Guesses:
    """The most probable tokens, as in `TokenScores`."""

    correct: Bool[Tensor, "*shape"]
    confidence: Float[Tensor, "*shape"]
    rank: Int[Tensor, "*shape"]


def guesses(logits: Float[Tensor, "*shape vocab"], targets: Int[Tensor, "*shape"]) -> Guesses:
    """The most probable tokens of some logits beside the real ones."""
    logits = logits.float()
    best = logits.max(-1)
    wanted = logits.gather(-1, targets[..., None])
    return Guesses(
        best.indices == targets,
        (best.values - logits.logsumexp(-1)).exp(),
        (logits > wanted).sum(-1),
    )
