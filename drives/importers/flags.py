"""Flags of a command from the fields of a dataclass: one default, one meaning, in one place."""

import argparse
import dataclasses
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.schemas import meanings


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add `--NAME` for every field; a bool becomes a switch, a Literal a choice."""
    kinds, told = get_type_hints(settings), meanings(settings)
    for field in dataclasses.fields(settings):
        kind, text = kinds[field.name], told[field.name].replace("%", "%%")
        flag = f"--{field.name.replace('_', '-')}"
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
            continue
        inner = [part for part in get_args(kind) if part is not NoneType]
        kind = inner[0] if len(inner) < len(get_args(kind)) else kind  # one that may be None
        extra: dict[str, Any] = {"type": kind}
        if get_origin(kind) is Literal:
            extra = {"choices": get_args(kind)}
        parser.add_argument(flag, default=field.default, help=text, **extra)


def options_of(args: argparse.Namespace, settings: type) -> Any:
    """The dataclass with the values that were typed."""
    return settings(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(settings)}
    )
