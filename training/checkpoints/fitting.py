"""Builds a checkpoint's network and loads its weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from training.errors import BadInput, first_line

Network = TypeVar("Network", bound=nn.Module)
# Exceptions of torch and arithmetic for impossible sizes: the values are untrusted.
IMPOSSIBLE = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def fitted(build: Callable[[], Network], weights: Mapping[str, Tensor], path: Path) -> Network:
    """The network of `build` with `weights`.

    It is first built without memory and compared, so a manifest that contradicts its weights is
    refused before any allocation.

    Args:
        path: the checkpoint, for messages.

    Raises:
        BadInput: the network cannot be built, or the weights do not fit.
    """
    try:
        with torch.device("meta"):
            needed = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    except IMPOSSIBLE as error:
        raise BadInput(
            f"{path}: no network can be built as its manifest says ({first_line(error)})"
        ) from error
    there = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(needed.keys() | there.keys()):
        if needed.get(name) != there.get(name):
            raise BadInput(
                f"{path}: the weights do not fit its manifest ({name} is {there.get(name)}, the "
                f"network has {needed.get(name)})"
            )
    network = build()
    network.load_state_dict(weights)
    return network
