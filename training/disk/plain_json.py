"""Figures as JSON that every reader takes.

Python writes NaN and Infinity, which are no JSON. What is not a number is written as null, and
shown as "-".
"""

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """Dicts, lists and numbers as they are, None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = 1) -> str:
    """A JSON text; ValueError for nothing that floats can be."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def number(value: float | None) -> float:
    """A figure that was read back: NaN where null was written."""
    return math.nan if value is None else float(value)
