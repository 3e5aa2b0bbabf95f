"""Figures as standard JSON.

Python writes NaN and Infinity, which are not JSON. Non-finite values are written as null and
shown as "-".
"""

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """A copy with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = 1) -> str:
    """JSON text; accepts every float."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def number(value: float | None) -> float:
    """A figure from JSON: NaN for null."""
    return math.nan if value is None else float(value)
