"""Averages of weights over the steps of a run (EMA)."""

from typing import Any

import torch


def grown(decay: float, step: int) -> float:
    """A decay that grows to `decay` with the steps, so that a short run is not mostly its start."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def average_(averages: Any, currents: Any, decay: float) -> None:
    """Move averages towards the current values: decay * average + (1 - decay) * current.

    What is not floating (counts, tables) is copied.
    """
    # FSDP shards parameters and no buffers, and no kernel takes both at once.
    for sharded in (True, False):
        pairs = [p for p in zip(averages, currents, strict=True) if _sharded(p[0]) == sharded]
        if not pairs:
            continue
        ours, new = zip(*pairs, strict=True)
        if ours[0].is_floating_point():
            torch._foreach_lerp_(ours, new, 1 - decay)
        else:
            torch._foreach_copy_(ours, new)


def _sharded(value: torch.Tensor) -> bool:
    from torch.distributed.tensor import DTensor  # half a second; a model that decodes has no use

    return isinstance(value, DTensor)
