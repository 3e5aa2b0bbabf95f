"""Checkpoints of two kinds at once: parts that were trained together, each opened as if alone.

The manifest of such a checkpoint has `parts`: by kind, what the manifest of that kind holds, and
under `weights` the beginning of the names of its weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import BadInput

PARTS, PREFIX = "parts", "weights"


def part_of(manifest: Mapping[str, Any], kind: str, path: Path) -> tuple[dict[str, Any], str]:
    """The manifest of the part of a kind, and the beginning of its weights' names.

    A checkpoint without parts is its own only part.

    Raises:
        BadInput: the parts are no such entry, or there is none of this kind.
    """
    parts = manifest.get(PARTS)
    if parts is None or not kind:
        return dict(manifest), ""
    if not isinstance(parts, dict) or not isinstance(parts.get(kind, {}), dict):
        raise BadInput(f"{path}: parts={str(parts)[:60]}: should be an object per kind")
    if kind not in parts:
        raise BadInput(f"{path}: has parts {', '.join(sorted(parts))}; a {kind} is needed")
    own = {name: value for name, value in parts[kind].items() if name != PREFIX}
    alone = {name: value for name, value in manifest.items() if name != PARTS}
    return {**alone, **own, "kind": kind}, str(parts[kind].get(PREFIX, ""))
