"""Reads the YAML file of a search, a ladder or a sweep, and checks its keys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from training.errors import BadInput


def read_plan_file(
    file: Path, required: Sequence[str], defaults: Mapping[str, Any], example: Path
) -> dict[str, Any]:
    """The values of the file, and defaults for missing keys.

    Args:
        example: an existing file of this kind; messages name the files beside it.

    Raises:
        BadInput: no such file, no YAML, or an unknown or missing key.
    """
    values = {**defaults, **_load(file, example)}
    unknown = sorted(values.keys() - {*required, *defaults})
    missing = [key for key in required if key not in values]
    if unknown or missing:
        what = f"{unknown[0]}: no such key" if unknown else f"{missing[0]}: missing"
        raise BadInput(f"{file}: {what}; there are: {', '.join([*required, *defaults])}")
    return values


def name_in(file: Path, key: str, value: Any) -> str:
    """A name that a plan file gives, such as that of its experiment or its metric.

    Raises:
        BadInput: it is no text, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{file}: {key}: {value!r}; give a name")
    return value


def _load(file: Path, example: Path) -> dict[str, Any]:
    if not file.is_file():
        known = ", ".join(sorted(str(p) for p in example.parent.glob("*.yaml")))
        raise BadInput(f"{file}: no such file" + (f"; there are: {known}" if known else ""))
    try:
        values = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise BadInput(f"{file}: is no mapping; see {example}")
    return {str(key): value for key, value in values.items()}
