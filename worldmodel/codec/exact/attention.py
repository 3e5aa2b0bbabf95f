"""Attention by sums of integers, in two ways: wide (float64), and narrow (float32, small integers).

A product in float32 reads half of the bytes and is computed twice as fast, and a decoder spends
most of its time in reading keys and values. It is exact while every sum stays below 2**24: so keys
and queries of 64 channels have 10 bits, as does no other operand of a network. Nothing is lost by
that but 1e-5 of the cross entropy (int8 caches lose as little, e.g. arXiv 2402.02750).
"""

import math
from functools import cache
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from training.errors import BadInput
from worldmodel.codec.exact.numbers import MASS, PIECE, masses, narrow, products, rounded
from worldmodel.codec.exact.tables import DEPTH, FINE, STEPS, exp_tables, floats

MOST_SCORES = 2**18  # of attention at once
BLOCK = 64  # queries of causal attention at once

LARGEST = 2**24  # float32 holds every integer up to it
VALUES = 255.0  # largest integer of a value
WEIGHTS = 63488.0  # what the weights of a query sum to, before each is rounded
MOST_POSITIONS = 2**12  # (WEIGHTS + MOST_POSITIONS / 2) * VALUES < LARGEST

# Keys, values [*batch position channel] and their scales [*batch position 1], as they are kept.
Kept = tuple[Tensor, Tensor, Tensor, Tensor]


class Way(Protocol):
    """How keys and values are rounded, and how queries read them.

    Attributes:
        dtype: of the integers that are kept.
    """

    dtype: torch.dtype

    def kept(
        self,
        key: Float[Tensor, "*batch position channel"],
        value: Float[Tensor, "*batch position _"],
    ) -> Kept:
        """Rounded, position by position."""

    def check(self) -> None:
        """BadInput where this process computes such products in another way."""

    def attend(
        self,
        query: Float[Tensor, "*batch new channel"],
        kept: Kept,
        hidden: Bool[Tensor, "*any new last"] | None,
        added: Tensor | None,
        scale: float,
    ) -> Float[Tensor, "*batch new channel"]:
        """softmax(query key.T scale + added) value.

        Args:
            hidden: what is not seen of the last positions; it changes nothing.
        """


class Wide:
    """Integers of 20 bits, and sums below 2**53."""

    dtype = torch.float64

    def check(self) -> None:
        """Nothing lowers float64."""

    def kept(self, key: Tensor, value: Tensor) -> Kept:
        (keys, key_scales), (values, value_scales) = rounded(key), rounded(value)
        return keys, values, key_scales, value_scales

    def attend(
        self, query: Tensor, kept: Kept, hidden: Tensor | None, added: Tensor | None, scale: float
    ) -> Tensor:
        keys, values, key_scales, value_scales = kept
        scores = products(query, (keys, key_scales)).mul_(scale)
        if added is not None:
            scores = scores + added
        _hide(scores, hidden)
        mass = masses(scores)
        total = mass.sum(-1, keepdim=True, dtype=torch.float64)
        weights, weight_scale = rounded(mass.mul_(value_scales.mT))
        return (weights @ values).mul_(weight_scale / total).float()


class Narrow:
    """Sums below 2**24: each operand has as many bits as its sum allows.

    Weights of a query have one sum: its masses over their total, each times the scale of its value
    over the largest that is seen.
    """

    dtype = torch.float32

    def check(self) -> None:
        odd = torch.full((64, 64), math.isqrt(LARGEST // 64) - 1.0)  # needs all bits of the sum
        wide = torch.full((64, 64), WEIGHTS - 1)  # and this all bits of an operand
        exact = (odd @ odd).eq(64 * odd**2) & (wide @ torch.eye(64)).eq(wide)
        if not exact.all():
            raise BadInput(
                "arithmetic=exact: products of float32 are lowered here; unset "
                "ONEDNN_DEFAULT_FPMATH_MODE and torch.set_float32_matmul_precision"
            )

    def kept(self, key: Tensor, value: Tensor) -> Kept:
        keys, key_scales = narrow(key, _limit(key))
        values, value_scales = narrow(value, VALUES)
        return keys, values, key_scales, value_scales

    def attend(
        self, query: Tensor, kept: Kept, hidden: Tensor | None, added: Tensor | None, scale: float
    ) -> Tensor:
        keys, values, key_scales, value_scales = kept
        if keys.shape[-2] > MOST_POSITIONS:
            raise BadInput(
                f"a sum over {keys.shape[-2]} positions is not exact; {MOST_POSITIONS} at most"
            )
        assert added is None
        integers, query_scales = narrow(query, _limit(query))
        scores = (integers @ keys.mT).mul_(query_scales.mul_(scale)).mul_(key_scales.mT)
        _hide(scores, hidden)
        largest = _largest(value_scales, hidden)
        mass = _masses(scores)
        total = mass.sum(-1, keepdim=True, dtype=torch.float64).mul_(largest)
        weights = mass.mul_(value_scales.mT).mul_((WEIGHTS / total).float()).round_()
        return (weights @ values).mul_(largest.mul_(1 / WEIGHTS))


def _limit(x: Float[Tensor, "*shape channel"]) -> float:
    """The largest integer of a query and of a key."""
    return float(math.isqrt(LARGEST // x.shape[-1]))


def _hide(scores: Float[Tensor, "*batch new position"], hidden: Tensor | None) -> None:
    if hidden is not None:
        scores[..., -hidden.shape[-1] :].masked_fill_(hidden, -torch.inf)


def _largest(
    scales: Float[Tensor, "*batch position 1"], hidden: Bool[Tensor, "new last"] | None
) -> Float[Tensor, "*batch #new 1"]:
    """Of the scales that each query sees."""
    if hidden is None:
        return scales.amax(-2, keepdim=True)
    last = hidden.shape[-1]
    ends = scales[..., -last:, :].mT.masked_fill(hidden, 0).amax(-1, keepdim=True)
    before = scales[..., :-last, :]
    return ends.maximum(before.amax(-2, keepdim=True)) if before.shape[-2] else ends


def _masses(scores: Float[Tensor, "*batch new position"]) -> Tensor:
    """As `masses`, in place; the exponent is cut and not rounded, which all masses share."""
    scores.sub_(scores.amax(-1, keepdim=True))
    coarse, fine = _tables()
    for piece in scores.view(-1).split(PIECE):
        steps = piece.mul_(-STEPS).clamp_(max=STEPS * DEPTH).int()
        found = coarse.index_select(0, steps >> FINE)
        torch.mul(found, fine.index_select(0, steps.bitwise_and_(2**FINE - 1)), out=piece)
    return scores.round_()


@cache
def _tables() -> tuple[Tensor, Tensor]:
    coarse, fine = floats(exp_tables)
    return coarse, fine * MASS


WIDE, NARROW = Wide(), Narrow()


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    way: Way = WIDE,
) -> Tensor:
    """softmax(query key.T scale) value; positions that are masked change nothing."""
    count = query.shape[-2]
    block = BLOCK if causal and mask is None else count  # of queries: those before see less
    size = max(1, MOST_SCORES // (query[0, ..., :block, 0].numel() * key.shape[-2]))
    if mask is not None and mask.ndim > 2:
        size = len(query)  # it may differ from row to row
    kept = way.kept(key, value)
    out = torch.empty(*query.shape[:-1], value.shape[-1])
    for first in range(0, len(query), size):
        rows = slice(first, first + size)
        for start in range(0, count, block):
            stop = min(start + block, count)
            seen = stop if block < count else key.shape[-2]
            keys, values, *scales = (part[rows, ..., :seen, :] for part in kept)
            hidden = torch.ones(stop - start, seen - start, dtype=torch.bool).triu(1)
            out[rows, ..., start:stop, :] = way.attend(
                query[rows, ..., start:stop, :],
                (keys, values, scales[0], scales[1]),
                *_masks(hidden if causal else None, mask),
                scale,
            )
    return out


def _masks(hidden: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What is hidden, and what is added to scores."""
    if mask is None or mask.dtype != torch.bool:
        return hidden, mask
    return (~mask if hidden is None else hidden | ~mask), None
