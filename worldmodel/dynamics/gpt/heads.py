"""Large vocabularies: losses that never hold tokens x vocabulary, and factorised tokens.

A token of a factorised vocabulary is a number whose digits are its factors, the first varying
fastest, as a `TokenSpec` says. Its probability is the product of those of its factors, each given
the ones before it: exact, no independence is assumed. The condition is linear (a learned vector
per factor value, added to what the next factor's head reads), so the whole joint distribution is
one small table per earlier factor away, and every decoder can draw from it as from any other.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.errors import BadInput
from worldmodel.dynamics.attention import linear
from worldmodel.dynamics.factors import Factors

# From here on the logits of a batch would be the largest thing in memory.
LARGE_VOCABULARY = 16_384
CHUNK_LOGITS = 2**24  # numbers held at once


def chunk_tokens(vocab_size: int) -> int:
    """How many tokens' logits are held at once."""
    return max(1, CHUNK_LOGITS // vocab_size)


def check_factors(factors: Sequence[int], vocab_size: int) -> None:
    """BadInput unless the factors make up the vocabulary."""
    if len(factors) < 2 or min(factors) < 2 or math.prod(factors) != vocab_size:
        raise BadInput(
            f"factors={tuple(factors)}: the vocabulary has {vocab_size} tokens; give two or more "
            "sizes whose product that is, or none"
        )


def plain_nats(
    x: Float[Tensor, "token dim"],
    weight: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """Cross entropy of a linear head, all logits at once."""
    return F.cross_entropy(F.linear(x, weight).float(), targets, reduction="none")


def chunked_nats(
    x: Float[Tensor, "token dim"],
    weight: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, " token"],
) -> Float[Tensor, " token"]:
    """As `plain_nats`, a chunk of tokens at a time, forward and backward.

    The backward pass computes the logits of a chunk again: a third more work in the head, for
    memory that does not grow with tokens x vocabulary.
    """
    size = chunk_tokens(len(weight))
    parts = zip(x.split(size), targets.split(size), strict=True)
    nats = [checkpoint(plain_nats, a, weight, b, use_reentrant=False) for a, b in parts]
    return torch.cat(nats)


class FactoredEmbedding(nn.Module):
    """The sum of a vector per factor; ids beyond the vocabulary have their own vectors."""

    def __init__(self, factors: Sequence[int], num_ids: int, dim: int) -> None:
        super().__init__()
        self.vocab_size = math.prod(factors)
        self.factors = Factors(factors, self.vocab_size)
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in factors)
        self.others = nn.Embedding(max(1, num_ids - self.vocab_size), dim)

    @property
    def weight(self) -> Tensor:
        """Of the ids beyond the vocabulary, in their order."""
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
    """Predicts the factors of a token one after the other, each given those before it."""

    def __init__(self, factors: Sequence[int], dim: int) -> None:
        super().__init__()
        self.factors = Factors(factors, math.prod(factors))
        self.heads = nn.ModuleList(nn.Linear(dim, size, bias=False) for size in factors)
        self.conditions = nn.ModuleList(nn.Embedding(size, dim) for size in factors[:-1])

    def nats(
        self, x: Float[Tensor, "token dim"], targets: Int[Tensor, " token"]
    ) -> Float[Tensor, " token"]:
        """Cross entropy of whole tokens: the sum over their factors."""
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
        past = x.new_zeros(1, x.shape[-1])  # one sum of conditions per value of the earlier factors
        for i, head in enumerate(self.heads):
            assert isinstance(head, nn.Linear)
            own = linear(head, x)[..., None, :] + linear(head, past)  # [..., earlier, size]
            # Later factors vary slower, so they come first.
            steps = joint[..., None] + own.float().log_softmax(-1)
            joint = steps.transpose(-1, -2).flatten(-2)
            if i < len(self.conditions):
                table = self.conditions[i].weight
                assert isinstance(table, Tensor)
                past = (past + table[:, None]).flatten(0, 1)
        return joint


def hits(
    logits: Callable[[Tensor], Tensor],
    x: Float[Tensor, "token dim"],
    targets: Int[Tensor, "*shape"],
    vocab: int,
) -> Bool[Tensor, "*shape"]:
    """Whether the most probable token is the target, a chunk of tokens at a time."""
    size = chunk_tokens(vocab)
    found = [logits(part).argmax(-1) for part in x.split(size)]
    return torch.cat(found).view(targets.shape) == targets
