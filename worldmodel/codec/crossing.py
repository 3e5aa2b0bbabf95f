"""What a codec costs at any length, and where a model begins to pay for its bytes.

A packed model costs its bytes once, then its bits per token; a general compressor costs nothing
first, and learns from what it has read. Its bits are measured on the first eighth, quarter, half
and all of the tokens, and go on by the power law A n^-a that fits them best. A model's bits are
those of the tokens that it is given, at any length: which assumes that other drives are as hard.
Over several sizes of a model, bits follow a power law of its bytes
(`training.scaling.fit`), and at any length the best of these sizes may be chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Integer

from training.errors import BadInput
from training.scaling.fit import NUM_PARAMETERS, PowerLaw, fit_power_law
from worldmodel.codec.rivals import rivals

PARTS = (8, 4, 2, 1)  # the shares of the tokens that a rival is measured on
LONGEST = 1e7  # minutes
CONFIDENCE = 0.9
CHOICES = 60  # sizes among which the best is chosen


class Costs(Protocol):
    """Whatever needs so many bytes for so many tokens."""

    def total(self, tokens: float) -> float: ...


@dataclass(frozen=True)
class Cost:
    """What a codec needs: bytes at first, and bits per token that fall as n^-slope.

    Attributes:
        bits: of a token, after `tokens` of them.
    """

    name: str
    bytes: float
    bits: float
    slope: float = 0.0
    tokens: float = 1.0

    def total(self, tokens: float) -> float:
        """Bytes of so many tokens, with the model."""
        return self.bytes + tokens * self.bits * (tokens / self.tokens) ** -self.slope / 8


def crossing(ours: Costs, theirs: Costs, per_minute: float) -> tuple[float, float] | None:
    """Minutes between which ours is smaller, up to `LONGEST`; None: nowhere.

    A rival that goes on learning comes back: the model's bits do not fall.
    """
    minutes = np.geomspace(1e-2, LONGEST, 4000)
    wins = [ours.total(m * per_minute) < theirs.total(m * per_minute) for m in minutes]
    if True not in wins:
        return None
    first = wins.index(True)
    last = wins.index(False, first) if False in wins[first:] else len(wins) - 1
    return float(minutes[first]), float(minutes[last])


def falling(tokens: Integer[np.ndarray, "step *grid"], vocab_size: int) -> Cost:
    """The best general compressor here, and its power law."""
    if len(tokens) < 2 * PARTS[0]:
        raise BadInput(f"{len(tokens)} time steps tell no power law; give {2 * PARTS[0]} or more")
    sizes = [rivals(tokens[: len(tokens) // part], vocab_size) for part in PARTS]
    whole = {name: size for name, size in sizes[-1].items() if size is not None}
    if not whole:
        raise BadInput("too many tokens for other codecs; give some minutes of them")
    name = min(whole, key=lambda name: whole[name])
    counts = [tokens[: len(tokens) // part].size for part in PARTS]
    bits = [8 * (own[name] or 0) / count for own, count in zip(sizes, counts, strict=True)]
    slope = -float(np.polyfit(np.log(counts), np.log(bits), 1)[0])
    return Cost(name, 0.0, bits[-1], max(0.0, slope), counts[-1])


@dataclass(frozen=True)
class Sizes:
    """A model whose size may be chosen, between the smallest and the largest that were measured.

    Attributes:
        bytes: the sizes.
        bits: of a token, by each.
    """

    bytes: tuple[float, ...]
    bits: tuple[float, ...]

    def total(self, tokens: float) -> float:
        """Bytes by the best size, with the model."""
        return min(b + tokens * e / 8 for b, e in zip(self.bytes, self.bits, strict=True))

    def best(self, tokens: float) -> float:
        """The bytes of that model."""
        pairs = zip(self.bytes, self.bits, strict=True)
        return min(pairs, key=lambda pair: pair[0] + tokens * pair[1] / 8)[0]


def law_over(costs: Sequence[Cost]) -> PowerLaw | None:
    """Bits against bytes of a model; None where there are too few sizes, or no gain by size."""
    if len({cost.bytes for cost in costs}) <= NUM_PARAMETERS:
        return None
    try:
        sizes, bits = ([getattr(cost, name) for cost in costs] for name in ("bytes", "bits"))
        return fit_power_law(np.array(sizes), np.array(bits))
    except BadInput:
        return None


def along(law: PowerLaw) -> tuple[Sizes, Sizes, Sizes]:
    """The sizes of a law, and those at the lower and the upper end of its interval."""
    sizes = tuple(np.geomspace(law.x.min(), law.x.max(), CHOICES).tolist())
    bands = [law.band(size, CONFIDENCE) for size in sizes]
    return (
        Sizes(sizes, tuple(law.at(size) for size in sizes)),
        Sizes(sizes, tuple(max(0.0, low) for low, _ in bands)),
        Sizes(sizes, tuple(high for _, high in bands)),
    )
