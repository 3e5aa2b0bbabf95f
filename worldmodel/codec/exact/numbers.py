"""Sums, norms, softmax and activations that are the same bits on every machine.

Two things make floats differ between machines, threads and batch sizes: the order of a sum, and
functions such as exp, which every library rounds in its own way. Here neither is left:

- A sum adds integers, held in float64, whose total stays below 2**53. Each partial sum is then an
  integer that float64 holds, so no order and no kernel rounds. Operands are rounded to 20 bits,
  each row with its own scale (as W8A8 quantisation, arXiv 2211.10438, with more bits).
- A function is a table that is made from decimal arithmetic, or a series.
- All else is a single addition, product, quotient or square root of float32 or float64, which
  IEEE 754 rounds in one way.

Scales belong to rows, so a row's result does not depend on the rows beside it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.errors import BadInput
from worldmodel.codec.exact.tables import (
    DEPTH,
    FINE,
    GRAIN,
    STEPS,
    WIDTH,
    exp_tables,
    floats,
    normal_tables,
    tanh_tables,
)

LIMIT = 2.0**19  # largest operand of a product
MOST_TERMS = 2**15  # LIMIT ** 2 * MOST_TERMS = 2 ** 53
MASS = 2.0**30  # what exp(0) counts in the sum of a softmax
TINY = 1e-30
PIECE = 2**15  # numbers that a chain of operations takes at once: they stay in the cache

Rounded = tuple[Tensor, Tensor]  # integers [*shape dim], mostly in float64, and scales [*shape 1]


class Grain(NamedTuple):
    """How finely the operands of layers are rounded.

    Attributes:
        inputs, weights: largest integers; that of the inputs is a power of two.
        most_terms: of a sum, which stays exact.
    """

    inputs: float = LIMIT
    weights: float = LIMIT
    most_terms: int = MOST_TERMS


WIDE = Grain()
# Weights of 8 bits, inputs of 14: what a browser multiplies fastest.
BYTES = Grain(2.0**13, 127.0)


def rounded(
    x: Float[Tensor, "*shape dim"], limit: float = LIMIT, most_terms: int = MOST_TERMS
) -> Rounded:
    """Integers of at most `limit` in float64, and a scale for every row; x is their product."""
    if x.shape[-1] > most_terms:
        raise BadInput(f"a sum of {x.shape[-1]} terms is not exact; {most_terms} at most")
    integers, scale = narrow(x, limit)
    return integers.double(), scale


def narrow(x: Float[Tensor, "*shape dim"], limit: float) -> Rounded:
    """As `rounded`, in float32."""
    x = x.float()
    # The largest number becomes the limit: rounding a quotient that is a little larger goes down.
    scale = x.abs().amax(-1, keepdim=True).clamp_(min=TINY).mul_(1 / limit)
    return (x / scale).round_(), scale


def products(
    a: Float[Tensor, "*shape left dim"],
    b: Rounded,
    bias: Float[Tensor, " right"] | None = None,
    limit: float = LIMIT,
) -> Float[Tensor, "*shape left right"]:
    """a @ b.T + bias for the integers and scales [right dim] of `rounded`; float32.

    Args:
        limit: largest integer of `a`.
    """
    integers, scale = rounded(a, limit)
    out = (integers @ b[0].mT).float().mul_(scale).mul_(b[1].mT)
    return out if bias is None else out.add_(bias)


def log(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The natural logarithm of positive numbers, by its series in (m - 1) / (m + 1)."""
    mantissa, exponent = x.double().frexp()
    low = mantissa < 0.7071
    mantissa = torch.where(low, mantissa * 2, mantissa)
    t = (mantissa - 1) / (mantissa + 1)
    square = t * t
    series = torch.zeros_like(t)
    for power in range(23, 0, -2):
        series = series * square + 1 / power
    return 2 * t * series + (exponent - low.int()).double() * 0.6931471805599453


def in_pieces(work: Callable[[Tensor], Tensor], x: Float[Tensor, "*shape"]) -> Tensor:
    """`work`, number by number, on pieces that stay in the cache."""
    if x.numel() <= PIECE:
        return work(x)
    out = torch.empty(x.shape, dtype=torch.float32)
    for into, piece in zip(out.view(-1).split(PIECE), x.reshape(-1).split(PIECE), strict=True):
        into.copy_(work(piece))
    return out


def exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp of numbers that are not positive, to 2 ** -16 in the exponent; 0 below -32."""
    coarse, fine = floats(exp_tables)
    steps = (x.float() * -STEPS).clamp_(max=STEPS * DEPTH).round_().int()
    found = _looked_up(coarse, steps >> FINE)
    return found.mul_(_looked_up(fine, steps & (2**FINE - 1)))


def masses(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    """exp(x) over its largest value in the row, as integers up to `MASS` in float32."""
    x = x.float()
    return in_pieces(lambda y: exp(y).mul_(MASS).round_(), x - x.amax(-1, keepdim=True))


def softmax(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    mass = masses(x).double()
    return mass.div_(mass.sum(-1, keepdim=True))


def log_softmax(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    total = masses(x).sum(-1, keepdim=True, dtype=torch.float64) / MASS
    x = x.double()
    return x - x.amax(-1, keepdim=True) - log(total)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    integers, scale = rounded(x)
    scale = scale.double()
    mean = integers.sum(-1, keepdim=True) / x.shape[-1]
    square = (integers * integers).sum(-1, keepdim=True) / x.shape[-1]
    variance = (square - mean * mean).clamp_(min=0) * (scale * scale)
    # The integers are done with; float64 keeps the sum of the row at zero.
    out = integers.sub_(mean).mul_(scale / (variance + eps).sqrt_()).float()
    return _affine(out, weight, bias)


def group_norm(
    x: Float[Tensor, "n channel *place"],
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Float[Tensor, "n channel *place"]:
    rows = layer_norm(x.reshape(len(x), groups, -1), None, None, eps)
    shape = (-1, *[1] * (x.ndim - 2))
    parts = (None if part is None else part.view(shape) for part in (weight, bias))
    return _affine(rows.view(x.shape), *parts)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    integers, scale = rounded(x)
    scale = scale.double()
    square = integers.mul_(integers).sum(-1, keepdim=True) / x.shape[-1]
    return _affine(x / (square * (scale * scale) + eps).sqrt_().float(), weight, None)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def silu(x: Tensor) -> Tensor:
    return in_pieces(_silu, x.float())


def _silu(x: Tensor) -> Tensor:
    tail = exp(-x.abs())
    return torch.where(x < 0, tail, 1.0) / (tail + 1) * x


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times a table: of the normal distribution, or as Hendrycks and Gimpel (2016) by tanh."""
    values, slopes = floats(tanh_tables if approximate == "tanh" else normal_tables)

    def work(x: Tensor) -> Tensor:
        last = 2 * WIDTH * GRAIN  # of the intervals: what is further out lies at its end
        place = (x * GRAIN).add_(WIDTH * GRAIN).clamp_(0, last)
        low = place.floor()
        index = low.int()
        below = place.sub_(low).mul_(_looked_up(slopes, index)).add_(_looked_up(values, index))
        return below.mul_(x)

    return in_pieces(work, x.float())


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def convolution(
    x: Tensor,
    weight: Rounded,
    bias: Tensor | None,
    size: tuple[int, int],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    limit: float = LIMIT,
) -> Tensor:
    """A 2D convolution; `weight` is rounded, with a row per output channel."""
    patches = F.unfold(x.float(), size, dilation, padding, stride)
    out = products(patches.mT, weight, bias, limit).mT
    height = (x.shape[2] + 2 * padding[0] - dilation[0] * (size[0] - 1) - 1) // stride[0] + 1
    return out.unflatten(-1, (height, -1))
