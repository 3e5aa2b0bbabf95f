"""The result of an adapter."""

from typing import NamedTuple

from torch import Tensor

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.config import DynamicsConfig


class OpenedWorldModel(NamedTuple):
    """A published world model in our terms.

    Attributes:
        config: config of the network.
        spec: spec of its tokens.
        action_names: action columns that it reads.
        weights: float32 tensors by our names.
        left_out: foreign names of unused tensors.
    """

    config: DynamicsConfig
    spec: TokenSpec
    action_names: tuple[str, ...]
    weights: dict[str, Tensor]
    left_out: list[str]
