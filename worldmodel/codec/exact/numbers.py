"""Sums, norms, softmax and activations that are the same bits on every machine.

Two things make floats differ between machines, threads and batch sizes: the order of a sum, and
functions such as exp, which every library rounds in its own way. Here neither is left:

- A sum adds integers, held in float64, whose total stays below 2**53. Each partial sum is then an
  integer that float64 holds, so no order and no kernel rounds. Operands are rounded to 20 bits,
  each row with its own scale (as W8A8 quantisation, arXiv 2211.10438, with more bits).
- A function is a table that is made from decimal arithmetic, or a polynomial.
- All else is a single addition, product, quotient or square root, which IEEE 754 rounds in one way.

Scales belong to rows, so a row's result does not depend on the rows beside it.
"""

from decimal import Decimal, localcontext
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.errors import BadInput

LIMIT = 2.0**19  # largest operand of a product
MOST_TERMS = 2**15  # LIMIT ** 2 * MOST_TERMS = 2 ** 53
MASS = 2.0**30  # what exp(0) counts in the sum of a softmax
STEPS = 2.0**16  # steps of a logit that the table of exp resolves
DEPTH = 32  # logits further below the largest count nothing
FINE = 10  # bits of the fine table; the rest indexes the coarse one
TINY = 1e-30


def rounded(x: Float[Tensor, "*shape dim"]) -> tuple[Tensor, Tensor]:
    """Integers of at most `LIMIT` in float64, and a scale for every row; x is their product."""
    if x.shape[-1] > MOST_TERMS:
        raise BadInput(f"a sum of {x.shape[-1]} terms is not exact; {MOST_TERMS} at most")
    x = x.double()
    scale = x.abs().amax(-1, keepdim=True).clamp(min=TINY) / LIMIT
    return (x / scale).round(), scale


def products(
    a: Float[Tensor, "*shape left dim"], b: tuple[Tensor, Tensor]
) -> Float[Tensor, "*shape left right"]:
    """a @ b.T for the integers and scales [right dim] of `rounded`."""
    integers, scale = rounded(a)
    return (integers @ b[0].mT) * (scale * b[1].mT)


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


def exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp of numbers that are not positive, to 2 ** -16 in the exponent; 0 below -32."""
    coarse, fine = _exp_tables()
    steps = (x.double() * -STEPS).clamp(max=STEPS * DEPTH).round().long()
    return coarse[steps >> FINE] * fine[steps & (2**FINE - 1)]


def masses(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    """exp(x) over its largest value in the row, as integers up to `MASS`."""
    x = x.double()
    return (exp(x - x.amax(-1, keepdim=True)) * MASS).round()


def softmax(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    mass = masses(x)
    return mass / mass.sum(-1, keepdim=True)


def log_softmax(x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
    x = x.double()
    total = masses(x).sum(-1, keepdim=True) / MASS
    return x - x.amax(-1, keepdim=True) - log(total)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    integers, scale = rounded(x)
    mean = integers.sum(-1, keepdim=True) / x.shape[-1]
    square = (integers * integers).sum(-1, keepdim=True) / x.shape[-1]
    variance = (square - mean * mean).clamp(min=0) * (scale * scale)
    return _affine((x.double() - mean * scale) / (variance + eps).sqrt(), weight, bias)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    integers, scale = rounded(x)
    square = (integers * integers).sum(-1, keepdim=True) / x.shape[-1]
    return _affine(x.double() / (square * (scale * scale) + eps).sqrt(), weight, None)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def sigmoid(x: Tensor) -> Tensor:
    tail = exp(-x.abs())
    return torch.where(x < 0, tail, torch.ones_like(tail)) / (tail + 1)


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """By tanh (Hendrycks and Gimpel 2016), or by a table of the normal distribution."""
    x = x.double()
    if approximate == "tanh":
        inner = x * x * x * 0.044715 + x
        return x * sigmoid(inner * 1.5957691216057308)  # 2 sqrt(2 / pi)
    table = _normal_table()
    place = (x.abs() * 256).clamp(max=len(table) - 2)
    low = place.floor()
    index = low.long()
    below = table[index] + (table[index + 1] - table[index]) * (place - low)
    return x * torch.where(x < 0, 1 - below, below)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """softmax(query key.T scale) value; positions that are masked change nothing."""
    scores = products(query, rounded(key)) * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    if mask is not None:
        added = (
            scores.new_zeros(()).masked_fill(~mask, -torch.inf)
            if mask.dtype == torch.bool
            else mask
        )
        scores = scores + added
    integers, scales = rounded(value)
    weights, weight_scales = rounded(softmax(scores) * scales.mT)
    return (weights @ integers) * weight_scales


def convolution(
    x: Tensor,
    weight: tuple[Tensor, Tensor],
    size: tuple[int, int],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """A 2D convolution; `weight` is rounded, with a row per output channel."""
    patches = F.unfold(x.double(), size, dilation, padding, stride)
    out = products(patches.mT, weight).mT
    height = (x.shape[2] + 2 * padding[0] - dilation[0] * (size[0] - 1) - 1) // stride[0] + 1
    return out.unflatten(-1, (height, -1))


@cache
def _exp_tables() -> tuple[Tensor, Tensor]:
    """exp(-k 2**(FINE - 16)) and exp(-k 2**-16)."""
    with localcontext() as context:
        context.prec = 40
        fine = [float((Decimal(-k) / int(STEPS)).exp()) for k in range(2**FINE)]
        count = int(STEPS * DEPTH) >> FINE
        coarse = [float((Decimal(-k << FINE) / int(STEPS)).exp()) for k in range(count)]
    return torch.tensor([*coarse, 0.0], dtype=torch.float64), torch.tensor(
        fine, dtype=torch.float64
    )


@cache
def _normal_table() -> Tensor:
    """The normal distribution function at k / 256, by its Taylor series; up to 8."""
    with localcontext() as context:
        context.prec = 40
        root = (2 * Decimal("3.14159265358979323846264338327950288419716939937510")).sqrt()
        table = []
        for k in range(8 * 256 + 2):
            x = Decimal(k) / 256
            term = total = x
            n = 1
            while abs(term) > Decimal(10) ** -25:
                n += 2
                term = term * x * x / n
                total += term
            table.append(float(Decimal("0.5") + total * (-x * x / 2).exp() / root))
    return torch.tensor(table, dtype=torch.float64)
