"""Kinds of world models, all asked through `Dynamics`: one config class and one line each."""

from dataclasses import asdict, fields
from typing import Any

from training.errors import BadInput
from worldmodel.dynamics.base import Dynamics, DynamicsConfig, TokenScores
from worldmodel.dynamics.gpt import GPTConfig
from worldmodel.dynamics.layout import LayoutConfig
from worldmodel.dynamics.masked import MaskedConfig
from worldmodel.dynamics.whole_frame import WholeFrameConfig

__all__ = [
    "KINDS",
    "Dynamics",
    "DynamicsConfig",
    "TokenScores",
    "describe",
    "from_description",
]

# Configs of networks by the name that a checkpoint gives them.
KINDS: dict[str, type[Any]] = {
    "gpt": GPTConfig,
    "masked": MaskedConfig,
    "whole_frame": WholeFrameConfig,
}


def describe(config: DynamicsConfig) -> dict[str, Any]:
    """A config as a manifest holds it: its kind's name and its values."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    return {"name": name, **asdict(config)}


def from_description(description: dict[str, Any]) -> DynamicsConfig:
    """The config that `describe` described.

    Raises:
        BadInput: an unknown kind, or a value that this kind does not have.
    """
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in description.items()
    }
    name = values.pop("name", None)
    if name not in KINDS:
        raise BadInput(f"unknown network {name!r}; known: {', '.join(KINDS)}")
    unknown = sorted(set(values) - {field.name for field in fields(KINDS[name])})
    if unknown:
        raise BadInput(
            f"the network {name} has no {', '.join(unknown)}; was it made by a newer one?"
        )
    if "layout" in values:
        values["layout"] = LayoutConfig(**values["layout"])
    config: DynamicsConfig = KINDS[name](**values)
    return config
