"""Settings judged by their range, before any work: each helper names the setting and what it takes.

    at_least(1, batch_size=self.batch_size, every=self.every)
    share("optimizer.", min_lr_ratio=self.min_lr_ratio)

NaN and infinity are in no range. A setting that may be null is judged where it is not.
"""

import math
from collections.abc import Iterable
from typing import Any

from training.errors import BadInput


def at_least(low: float, where: str = "", /, **values: Any) -> None:
    """Every value is a finite number, `low` or more; a whole one where `low` is an integer."""
    whole = isinstance(low, int)
    for name, value in values.items():
        fits = _is_number(value) and value >= low and (not whole or float(value).is_integer())
        _judge(where + name, value, fits, f"{'a whole' if whole else 'a'} number from {low} on")


def positive(where: str = "", /, **values: Any) -> None:
    """Every value is a finite number above 0."""
    for name, value in values.items():
        _judge(where + name, value, _is_number(value) and value > 0, "a number above 0")


def share(where: str = "", /, **values: Any) -> None:
    """Every value is a number in [0, 1]."""
    for name, value in values.items():
        _judge(where + name, value, _is_number(value) and 0 <= value <= 1, "a share from 0 to 1")


def below_one(where: str = "", /, **values: Any) -> None:
    """Every value is a number in [0, 1)."""
    for name, value in values.items():
        _judge(
            where + name, value, _is_number(value) and 0 <= value < 1, "a share from 0 to below 1"
        )


def one_of(known: Iterable[Any], where: str = "", /, **values: Any) -> None:
    """Every value is one of those known."""
    known = list(known)
    for name, value in values.items():
        if value not in known:
            choices = ", ".join(str(choice) or repr(choice) for choice in known)
            raise BadInput(f"{where}{name}={value!r}: choose one of {choices}")


def _judge(name: str, value: Any, fits: bool, range_: str) -> None:
    if not fits:
        raise BadInput(f"{name}={value!r}: give {range_}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
