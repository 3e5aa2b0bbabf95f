"""Activation checkpointing: drop a layer's activations, recompute them in the backward pass."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint


def maybe_checkpoint(layer: nn.Module, *args: Any, recompute: bool) -> Any:
    """Run a layer; with `recompute`, only its inputs are kept for the backward pass.

    Weights that are computed from others (torch's parametrizations) are computed once there too.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, context_fn=_contexts)
    return layer(*args)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), parametrize.cached()


class Layers(nn.Sequential):
    """A sequence of layers with optional activation checkpointing."""

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = maybe_checkpoint(layer, x, recompute=self.recompute)
        return x
