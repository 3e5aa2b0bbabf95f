"""The result of an adapter."""

from typing import NamedTuple

from torch import Tensor

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.config import DynamicsConfig


class OpenedWorldModel(NamedTuple):
    """A published world model in our terms.

    Attributes:
        config: of the network.
        spec: what its tokens mean.
        action_names: columns of the actions that it reads.
        weights: float32, by the network's own names.
        left_out: foreign names of tensors that are no part of the network.
    """

    config: DynamicsConfig
    spec: TokenSpec
    action_names: tuple[str, ...]
    weights: dict[str, Tensor]
    left_out: list[str]
