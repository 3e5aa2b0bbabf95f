"""Kinds of world models, all asked through `Dynamics`: one config class and one line each."""

from dataclasses import asdict
from typing import Any

from training.disk.records import judged, kind_of
from worldmodel.dynamics.base import Dynamics, DynamicsConfig, TokenScores
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.masked.model import MaskedConfig
from worldmodel.dynamics.whole_frame.model import WholeFrameConfig

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


def from_description(description: Any, where: str = "network") -> DynamicsConfig:
    """The config that `describe` described.

    Args:
        where: the values come from, for messages.

    Raises:
        BadInput: an unknown kind, or a value that this kind does not have.
    """
    kind, values = kind_of(description, KINDS, where)
    config: DynamicsConfig = judged(kind, values, where)
    return config
