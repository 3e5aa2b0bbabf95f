"""Plain values from outside, judged by type: those of JSON files, and composed settings.

Types are strict: "10" is no number, 1.5 and true are no integers, NaN and infinity are refused. A
class checks its ranges in `__post_init__`.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from training.errors import BadInput

Judged = TypeVar("Judged")
Kind = TypeVar("Kind")
SHOWN = 3  # largest number of faults in a message


def judged(cls: type[Judged], values: Any, where: str, finite: bool = True) -> Judged:
    """Build a dataclass (or another type) from plain values, those of its parts included.

    A list may stand for a tuple, an integer for a float.

    Args:
        where: name of the values in messages, such as "runs/a/run.json: network".
        finite: refuse NaN and infinity.

    Raises:
        BadInput: a field is unknown, missing, or of another type or range; names each.
    """
    try:
        text = json.dumps([values])
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{where}: only plain values can stand there ({error})") from error
    kind: Any = cls
    try:
        found: Judged = _adapter(kind, finite).validate_json(text)[0]
    except ValidationError as error:
        faults = [
            _told(fault, ".".join(str(part) for part in fault["loc"][1:]))
            for fault in error.errors(include_url=False)
        ]
        more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
        raise BadInput(f"{where}: {'; '.join(faults[:SHOWN])}{more}") from error
    return found


def judged_part(kind: Any, value: Any, name: str) -> Any:
    """A value for a field of type `kind`; dataclasses in it are built already.

    Raises:
        BadInput: it has another type; names the field.
    """
    try:
        return _adapter(kind, True).validate_python((value,))[0]
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        entry = "".join(f"[{part}]" for part in fault["loc"][1:] if isinstance(part, int))
        raise BadInput(_told(fault, f"{name}{entry}")) from error


def kind_of(values: Any, kinds: Mapping[str, Kind], where: str) -> tuple[Kind, dict[str, Any]]:
    """The kind named in the values, and the values without the name.

    Raises:
        BadInput: not an object, or an unknown kind.
    """
    if not isinstance(values, dict):
        raise BadInput(f"{where}={str(values)[:60]}: should be an object with a name")
    rest = dict(values)
    name = rest.pop("name", None)
    if not isinstance(name, str) or name not in kinds:
        raise BadInput(f"{where}: {name!r} is unknown; known: {', '.join(kinds)}")
    return kinds[name], rest


@cache
def _adapter(kind: Any, finite: bool) -> TypeAdapter[Any]:
    # A dataclass of the standard library takes no config of its own, but inherits a tuple's.
    config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=not finite,
        arbitrary_types_allowed=True,  # a field of such a type keeps its default
    )
    return TypeAdapter(tuple[kind], config=config)


def _told(fault: Any, name: str) -> str:
    """A message for one of pydantic's faults; `name` is "" for the whole."""
    kind = fault["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name} is unknown"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name} is missing"
    if kind == "value_error":  # raised by the class, with its own message
        return f"{name}: {fault['ctx']['error']}" if name else str(fault["ctx"]["error"])
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    reason = fault["msg"].removeprefix("Input should be ").removeprefix("Input ")
    return f"{name}{'=' if name else ''}{shown}: give {reason}"
