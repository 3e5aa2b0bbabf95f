"""Tables of exp and of GELU's factor, from decimal arithmetic."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

STEPS = 2.0**16  # steps of a logit that the table of exp resolves
DEPTH = 32  # logits further below the largest count nothing
FINE = 10  # bits of the fine table; the rest indexes the coarse one
WIDTH, GRAIN = 8, 256  # the tables of GELU reach from -WIDTH to WIDTH, with 1 / GRAIN between


@cache
def floats(tables: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Both in float32, as they are used."""
    first, second = tables()
    return first.float(), second.float()


@cache
def exp_tables() -> tuple[Tensor, Tensor]:
    """exp(-k 2**(FINE - 16)) and exp(-k 2**-16)."""
    with localcontext() as context:
        context.prec = 40
        fine = [float((Decimal(-k) / int(STEPS)).exp()) for k in range(2**FINE)]
        count = int(STEPS * DEPTH) >> FINE
        coarse = [float((Decimal(-k << FINE) / int(STEPS)).exp()) for k in range(count)]
    return _float64([*coarse, 0.0]), _float64(fine)


@cache
def normal_tables() -> tuple[Tensor, Tensor]:
    """The normal distribution function, by its Taylor series."""
    with localcontext() as context:
        context.prec = 40
        root = (2 * Decimal("3.14159265358979323846264338327950288419716939937510")).sqrt()

        def above(x: Decimal) -> Decimal:
            term = total = x
            n = 1
            while abs(term) > Decimal(10) ** -25:
                n += 2
                term = term * x * x / n
                total += term
            return Decimal("0.5") + total * (-x * x / 2).exp() / root

        return _table(above)


@cache
def tanh_tables() -> tuple[Tensor, Tensor]:
    """(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    with localcontext() as context:
        context.prec = 30
        twice = 2 * (2 / Decimal("3.14159265358979323846264338327950288")).sqrt()

        def above(x: Decimal) -> Decimal:
            return 1 / (1 + (-twice * (x + Decimal("0.044715") * x * x * x)).exp())

        return _table(above)


def _table(above: Callable[[Decimal], Decimal]) -> tuple[Tensor, Tensor]:
    """Values at the ends of intervals from -WIDTH to WIDTH, and what each adds; x and -x make 1."""
    half = [above(Decimal(k) / GRAIN) for k in range(WIDTH * GRAIN + 1)]
    half[-1] = Decimal(1)  # beyond the table: 1 and 0
    values = [1 - y for y in reversed(half)] + half[1:]
    steps = [float(b - a) for a, b in pairwise(values)]
    return _float64([float(y) for y in values]), _float64([*steps, 0.0])


def _float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
