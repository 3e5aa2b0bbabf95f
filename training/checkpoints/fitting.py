"""Builds a checkpoint's network and loads its weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from training.errors import BadInput, first_line

Network = TypeVar("Network", bound=nn.Module)
Shape = tuple[int, ...]
Shapes = dict[str, Shape]
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
            needed = shapes(build().state_dict())
    except IMPOSSIBLE as error:
        raise BadInput(
            f"{path}: no network can be built as its manifest says ({first_line(error)})"
        ) from error
    if (unlike := first_unlike(shapes(weights), needed)) is not None:
        name, there, here = unlike
        raise BadInput(
            f"{path}: the weights do not fit its manifest ({name} is {there}, the network has "
            f"{here})"
        )
    network = build()
    network.load_state_dict(weights)
    return network


def shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in weights.items()}


def first_unlike(ours: Shapes, theirs: Shapes) -> tuple[str, Shape | None, Shape | None] | None:
    """The first name whose shapes differ, and both; None of one that is absent."""
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return name, ours.get(name), theirs.get(name)
    return None
