"""The kinds of world models: their names in checkpoints, and the network of each config."""

from dataclasses import asdict
from typing import Any

from drives.tokens.spec import TokenSpec
from training.disk.judging import judged, kind_of
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.keyframes.model import Keyframes
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.dynamics.whole_frame.model import WholeFrame

# Configs by their name in checkpoints.
KINDS: dict[str, type[Any]] = {
    "gpt": GPTConfig,
    "keyframes": KeyframesConfig,
    "masked": MaskedConfig,
    "occupancy": OccupancyConfig,
    "whole_frame": WholeFrameConfig,
}


NETWORKS: dict[type[DynamicsConfig], type[Any]] = {
    GPTConfig: GPT,
    KeyframesConfig: Keyframes,
    MaskedConfig: Masked,
    OccupancyConfig: Occupancy,
    WholeFrameConfig: WholeFrame,
}


def build_dynamics(config: DynamicsConfig, spec: TokenSpec, num_actions: int) -> Dynamics:
    """A newly initialised network of a config.

    Args:
        num_actions: columns of the actions; 0 for none.
    """
    network: Dynamics = NETWORKS[type(config)](config, spec, num_actions)
    return network


def describe(config: DynamicsConfig) -> dict[str, Any]:
    """The manifest entry of a config: its kind and its values."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    return {"name": name, **asdict(config)}


def from_description(description: Any, where: str = "network") -> DynamicsConfig:
    """The config from an entry of `describe`.

    Args:
        where: source of the entry, for messages.

    Raises:
        BadInput: an unknown kind, or an unknown or wrong value.
    """
    kind, values = kind_of(description, KINDS, where)
    config: DynamicsConfig = judged(kind, values, where)
    return config
