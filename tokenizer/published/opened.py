"""The result of an adapter."""

from typing import NamedTuple

from torch import Tensor

from drives.clips.preprocessing import Preprocessing
from tokenizer.networks.kinds import NetworkConfig


class OpenedTokenizer(NamedTuple):
    """A published tokenizer in our terms.

    Attributes:
        config: config of the network.
        weights: float32 tensors by our names.
        preprocessing: preprocessing of its training frames.
        left_out: foreign names of unused tensors, such as losses.
    """

    config: NetworkConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    left_out: list[str]
