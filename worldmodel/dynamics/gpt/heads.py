"""Heads for large vocabularies: losses in chunks, and factorised tokens.

The factors of a token are its digits; the first varies fastest (`TokenSpec`). The probability of a
token is the product of the probabilities of its factors, each given the earlier ones. This is
exact. The condition is linear: every factor value has a learned vector, which is added to the
input of the next head. So the joint distribution over all tokens is cheap, and every decoder can
sample from it.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.errors import BadInput
from worldmodel.dynamics.attention import linear
from worldmodel.dynamics.factors import Factors
from worldmodel.dynamics.scores import Guesses, guesses

# From this size on, the logits of a batch would dominate memory.
LARGE_VOCABULARY = 16_384
CHUNK_LOGITS = 2**24  # logits held at once


def chunk_tokens(vocab_size: int) -> int:
    """Number of tokens in a chunk."""
    return max(1, CHUNK_LOGITS // vocab_size)


def check_factors(factors: Sequence[int], vocab_size: int) -> None:
    """BadInput unless the factors multiply to the vocabulary."""
    if len(factors) < 2 or min(factors) < 2 or math.prod(factors) != vocab_size:
        raise BadInput(
            f"factors={tuple(factors)}: the vocabulary has {vocab_size} tokens; give two or more "
            "sizes whose product that is, or none"
        )


def token_nll(
    x: Float[Tensor, "token dim"],
    weight: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """Cross entropy of every token in nats, with all logits in memory at once."""
    return F.cross_entropy(F.linear(x, weight).float(), targets, reduction="none")


def chunked_token_nll(
    x: Float[Tensor, "token dim"],
    weight: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """As `token_nll`, in chunks of tokens, forward and backward.

    The backward pass recomputes the logits of a chunk. The head does a third more work; memory
    does not grow with tokens x vocabulary.
    """
    size = chunk_tokens(len(weight))
    parts = zip(x.split(size), targets.split(size), strict=True)
    parts_nll = [checkpoint(token_nll, a, weight, b, use_reentrant=False) for a, b in parts]
    return torch.cat(parts_nll)


class FactoredEmbedding(nn.Module):
    """Sums one vector per factor; ids beyond the vocabulary have their own vectors."""

    def __init__(self, factors: Sequence[int], num_ids: int, dim: int) -> None:
        super().__init__()
        self.vocab_size = math.prod(factors)
        self.factors = Factors(factors, self.vocab_size)
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in factors)
        self.others = nn.Embedding(max(1, num_ids - self.vocab_size), dim)

    @property
    def weight(self) -> Tensor:
        """Vectors of the ids beyond the vocabulary."""
        return self.others.weight

    def forward(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        own = ids < self.vocab_size
        digits = self.factors.split(ids.clamp(max=self.vocab_size - 1)).unbind(-1)
        x = sum(
            (table(digit) for table, digit in zip(self.tables, digits, strict=True)),
            start=torch.zeros((), device=ids.device),
        )
        others = self.others((ids - self.vocab_size).clamp(min=0))
        return torch.where(own[..., None], x, others)


class FactoredHead(nn.Module):
    """Predicts the factors of a token in order, each given the earlier ones."""

    def __init__(self, factors: Sequence[int], dim: int) -> None:
        super().__init__()
        self.factors = Factors(factors, math.prod(factors))
        self.heads = nn.ModuleList(nn.Linear(dim, size, bias=False) for size in factors)
        self.conditions = nn.ModuleList(nn.Embedding(size, dim) for size in factors[:-1])

    def token_nll(
        self, x: Float[Tensor, "token dim"], targets: Int[Tensor, " token"]
    ) -> Float[Tensor, " token"]:
        """Cross entropy of every token in nats: the sum over its factors."""
        digits = self.factors.split(targets).unbind(-1)
        total = torch.zeros((), device=x.device)
        for i, head in enumerate(self.heads):
            total = total + F.cross_entropy(head(x).float(), digits[i], reduction="none")
            if i < len(self.conditions):
                x = x + self.conditions[i](digits[i])
        return total

    def forward(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape vocab"]:
        """Log-probabilities of all tokens."""
        joint = torch.zeros(*x.shape[:-1], 1, device=x.device)
        past = x.new_zeros(1, x.shape[-1])  # one row per value of the earlier factors
        for i, head in enumerate(self.heads):
            assert isinstance(head, nn.Linear)
            own = linear(head, x)[..., None, :] + linear(head, past)  # [..., earlier, size]
            # Later factors vary slower: their axis comes first.
            steps = joint[..., None] + own.float().log_softmax(-1)
            joint = steps.transpose(-1, -2).flatten(-2)
            if i < len(self.conditions):
                table = self.conditions[i].weight
                assert isinstance(table, Tensor)
                past = (past + table[:, None]).flatten(0, 1)
        return joint


def guesses_in_chunks(
    logits: Callable[[Tensor], Tensor],
    x: Float[Tensor, "token dim"],
    targets: Int[Tensor, "*shape"],
    vocab: int,
) -> Guesses:
    """As `guesses`, from the inputs of a head; in chunks of tokens, for large vocabularies."""
    size = chunk_tokens(vocab)
    parts = [
        guesses(logits(part), wanted)
        for part, wanted in zip(x.split(size), targets.flatten().split(size), strict=True)
    ]
    correct, confidence, rank = (
        torch.cat([getattr(part, name) for part in parts]).view(targets.shape)
        for name in ("correct", "confidence", "rank")
    )
    return Guesses(correct, confidence, rank)
