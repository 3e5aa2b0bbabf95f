"""Settings: a dataclass holds the default, the type and the meaning of each, once.

`node_of` makes a config node of a dataclass (`training.cli.register` gives it to Hydra), so that
every field can be overridden without "+" and YAML holds differences only. `judged_settings` turns
what was composed into the dataclasses again: types and ranges are judged there, once, for every
command. Only `know` adds to what is known, so no answer depends on what ran before. Imports no
Hydra, which is not there where a command does without.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from training.command_line import near
from training.disk.judging import judged_part
from training.errors import BadInput

TARGET = "_target_"
MOST = 1e18  # larger numbers overflow in tensors, sooner or later
Built = TypeVar("Built")
SCHEMAS: dict[str, type] = {}  # what the fields of a node are, by its `_target_`
# Settings of each command that nothing is built from, by where they lie in its config.
SECTIONS: dict[str, Mapping[str, type]] = {}


def node_of(settings: type) -> dict[str, Any]:
    """The config node of a dataclass: `_target_` and every field at its default."""
    fields = (field for field in dataclasses.fields(settings) if field.init)
    return {TARGET: path_of(settings)} | {field.name: _default(field) for field in fields}


def node_at(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The part of a config that lies at a dotted path; "" is all of it."""
    for part in where.split(".") if where else ():
        values = values[part]
    return values


def path_of(settings: type) -> str:
    return f"{settings.__module__}.{settings.__qualname__}"


def know(settings: type, target: str = "") -> None:
    """Judge nodes of this `_target_` by a dataclass, and those of the dataclasses in its fields.

    Args:
        target: the class that is built from the settings; "" is the dataclass itself.
    """
    SCHEMAS[target or path_of(settings)] = settings
    for kind in get_type_hints(settings).values():
        for part in (kind, *get_args(kind)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                know(part)


def judged_settings(values: Any, where: str = "") -> Any:
    """A composed config with each node that has a schema turned into its dataclass.

    Nodes of other classes (callbacks of the user's own) stay as they are.

    Args:
        values: plain values, interpolations resolved.

    Raises:
        BadInput: names the setting, its value, and what is needed in its place.
    """
    if isinstance(values, Mapping):
        path = f"{where}." if where else ""
        inner = {str(k): judged_settings(v, f"{path}{k}") for k, v in values.items()}
        schema = SCHEMAS.get(str(inner.get(TARGET)))
        return inner if schema is None else _build(schema, inner, where)
    if isinstance(values, float) and math.isnan(values):
        raise BadInput(f"{where}=nan: give a number")
    if isinstance(values, int | float) and abs(values) > MOST:
        raise BadInput(f"{where}={values}: give a number within {MOST:.0e}")
    if isinstance(values, Sequence) and not isinstance(values, str):
        return tuple(judged_settings(v, f"{where}[{i}]") for i, v in enumerate(values))
    return values


def built_from(settings: type[Built], values: Mapping[str, Any]) -> Built:
    """The dataclass of these values; the others have their defaults.

    Raises:
        BadInput: names the setting, its value, and what is needed in its place.
    """
    given = {str(name): judged_settings(value, name) for name, value in values.items()}
    built: Built = _build(settings, given, "")
    return built


def judged_section(settings: type, values: Mapping[str, Any], where: str) -> None:
    """Judge the fields of `settings` among values that nothing is built from.

    Raises:
        BadInput: names the setting, its value, and what is needed in its place.
    """
    names = {field.name for field in dataclasses.fields(settings)}
    path = f"{where}." if where else ""
    own = {k: judged_settings(v, f"{path}{k}") for k, v in values.items() if k in names}
    _build(settings, own, where)


def meanings(settings: type) -> dict[str, str]:
    """Meanings of a dataclass's fields from its docstring, inherited ones included."""
    found: dict[str, str] = {}
    for cls in reversed(settings.__mro__):
        text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
        part = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", text, flags=re.M | re.S)
        if not part:
            continue
        entry = r"^ {4}(\w[\w, ]*): (.*?)(?=^ {4}\w[\w, ]*: |\Z)"
        for names, meaning in re.findall(entry, part[1], flags=re.M | re.S):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def type_name(kind: Any) -> str:
    """A type as a user reads it: "int", "float or null", "adam | sgd", "list of int"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join("null" if part is type(None) else type_name(part) for part in inner)
    if str(origin) == "typing.Literal":
        return " | ".join('""' if choice == "" else str(choice) for choice in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"[{', '.join(type_name(part) for part in inner)}]"
    if origin is not None and inner and issubclass(origin, Sequence):
        return f"list of {type_name(inner[0])}"
    return str(getattr(kind, "__name__", kind))


def annotated(
    values: Mapping[str, Any],
    settings: type | None = None,
    indent: str = "",
    sections: Mapping[str, type] = MappingProxyType({}),
    where: str = "",
) -> str:
    """A composed config as YAML in which a comment gives the type and the meaning of each setting.

    Args:
        settings: the dataclass of the values that lie at this level.
        sections: those of levels below that nothing is built from, by where they lie.
        where: of this level.
    """
    schema = SCHEMAS.get(str(values.get(TARGET))) or settings
    kinds, told = (get_type_hints(schema), meanings(schema)) if schema else ({}, {})
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            path = f"{where}.{key}" if where else key
            below = annotated(value, sections.get(path), f"{indent}  ", sections, path)
            meaning = _first_clause(told.get(key, ""))
            lines += [f"{indent}{key}:{'  # ' if meaning else ''}{meaning}", below]
            continue
        line = f"{indent}{key}: {_scalar(value)}"
        if key in kinds:
            meaning = _first_clause(told.get(key, ""))
            line = f"{line:<34}  # {type_name(kinds[key])}{': ' if meaning else ''}{meaning}"
        lines.append(line)
    return "\n".join(lines)


def _first_clause(meaning: str) -> str:
    """Up to the first semicolon or full stop that is not within parentheses."""
    for end in re.finditer(r"(?<![\s.])[.;](?=\s|$)", meaning):
        before = meaning[: end.start()]
        if before.count("(") == before.count(")"):
            return before
    return meaning


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return _plain(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _plain(field.default_factory())
    return "???"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return node_of(type(value)) | own
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def _build(settings: type, values: dict[str, Any], where: str) -> Any:
    path = f"{where}." if where else ""
    fields = {field.name for field in dataclasses.fields(settings) if field.init}
    unknown = sorted(set(values) - fields - {TARGET})
    if unknown:
        raise BadInput(f"{path}{unknown[0]}: no such setting; {near(unknown[0], sorted(fields))}")
    kinds = get_type_hints(settings)
    given = {
        name: judged_part(kinds[name], values[name], f"{path}{name}")
        for name in fields & set(values)
        if not _is_foreign(values[name])
    }
    if len(given) < len(fields & set(values)):
        return values  # a part is of the user's own, so only they can judge the whole
    # A whole number of type float is told as it was typed: -1, not -1.0.
    as_typed = {n: values[n] if type(values[n]) is int else v for n, v in given.items()}
    try:
        settings(**as_typed)
        return settings(**given)
    except BadInput as error:
        told = str(error)
        raise BadInput(f"{where}: {told}" if where and where not in told else told) from error
    except TypeError as error:
        raise BadInput(f"{where}: {error}") from error


def _is_foreign(value: Any) -> bool:
    return isinstance(value, Mapping) and TARGET in value
