"""Settings judged by their range, before any work: each helper names the setting and what it takes.

    at_least(1, batch_size=self.batch_size, every=self.every)
    share("optimizer.", min_lr_ratio=self.min_lr_ratio)

NaN and infinity are in no range. Of a list, every entry is judged. A setting that may be null is
judged where it is not.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from training.errors import BadInput


def at_least(low: float, where: str = "", /, **values: Any) -> None:
    """Every value is a finite number, `low` or more; a whole one where `low` is an integer."""
    within(low, math.inf, where, **values)


def within(low: float, high: float, where: str = "", /, **values: Any) -> None:
    """Every value is a number from `low` to `high`; a whole one where `low` is an integer."""
    whole = isinstance(low, int)
    range_ = f"{'a whole' if whole else 'a'} number from {low} "
    range_ += f"to {high}" if high < math.inf else "on"

    def fits(value: float) -> bool:
        return low <= value <= high and (not whole or float(value).is_integer())

    _judge(where, values, fits, range_)


def positive(where: str = "", /, **values: Any) -> None:
    """Every value is a finite number above 0."""
    _judge(where, values, lambda value: value > 0, "a number above 0")


def share(where: str = "", /, **values: Any) -> None:
    """Every value is a number in [0, 1]."""
    _judge(where, values, lambda value: 0 <= value <= 1, "a share from 0 to 1")


def below_one(where: str = "", /, **values: Any) -> None:
    """Every value is a number in [0, 1)."""
    _judge(where, values, lambda value: 0 <= value < 1, "a share from 0 to below 1")


def one_of(known: Iterable[Any], where: str = "", /, **values: Any) -> None:
    """Every value is one of those known."""
    known = list(known)
    for name, value in values.items():
        if value not in known:
            choices = ", ".join(str(choice) or repr(choice) for choice in known)
            raise BadInput(f"{where}{name}={value!r}: choose one of {choices}")


def multiple_of(divisor: int, named: str = "", /, **values: int) -> None:
    """Every value is a positive multiple of `divisor`, which is the setting `named`."""
    for name, value in values.items():
        if divisor < 1 or value < 1 or value % divisor:
            of = f"{named}={divisor}" if named else divisor
            raise BadInput(f"{name}={value}: give a multiple of {of}")


def _judge(
    where: str, values: Mapping[str, Any], fits: Callable[[float], bool], range_: str
) -> None:
    for name, value in values.items():
        many = isinstance(value, Sequence) and not isinstance(value, str)
        if not all(_is_number(entry) and fits(entry) for entry in (value if many else [value])):
            raise BadInput(f"{where}{name}={value!r}: give {range_}{', each' if many else ''}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
