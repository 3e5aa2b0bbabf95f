"""Adapters for published tokenizers and world models: choice by name, files, provenance.

An adapter is a small dataclass of options with `open(files)`; nothing else knows its
format. Each stage has a table of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from training.disk.hashing import file_sha256
from training.errors import BadInput

Adapter = TypeVar("Adapter")


def choose(
    adapters: Mapping[str, Callable[..., Adapter]],
    option: str,
    name: str,
    options: Mapping[str, Any],
) -> Adapter:
    """The adapter called `name`; options that are None keep their defaults.

    Args:
        option: command-line option of the name, for messages.

    Raises:
        BadInput: no such adapter, or an option that it does not have.
    """
    if name not in adapters:
        raise BadInput(f"{option}={name}: no such published one; there are: {', '.join(adapters)}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(cast(Any, adapters[name]))]
    for key, value in given.items():
        if key not in known:
            raise BadInput(f"{key}={value}: {name} has no such option; it has: {', '.join(known)}")
    return adapters[name](**given)


def paths(ckpt: Any) -> list[Path]:
    """One file, or a list of them, as a command line gives it."""
    return [Path(str(file)) for file in (ckpt if isinstance(ckpt, list | tuple) else [ckpt])]


def provenance(name: str, files: Sequence[Path], left_out: Sequence[str]) -> dict[str, Any]:
    """Manifest entry: the opened files, the adapter, and the unused tensors."""
    hashes = {file.name: file_sha256(file) for file in files}
    return {"published": {"name": name, "files": hashes, "left_out": list(left_out)}}
