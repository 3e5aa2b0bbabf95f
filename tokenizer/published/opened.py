"""The result of an adapter."""

from typing import NamedTuple

from torch import Tensor

from drives.preprocessing import Preprocessing
from tokenizer.networks.kinds import NetworkConfig


class OpenedTokenizer(NamedTuple):
    """A published tokenizer in our terms.

    Attributes:
        config: of the network.
        weights: float32, by the network's own names.
        preprocessing: what the network was trained on.
        left_out: foreign names of tensors that are no part of the tokenizer, such as losses.
    """

    config: NetworkConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    left_out: list[str]
