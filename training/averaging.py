"""Averages of weights over the steps of a run (EMA)."""

from typing import Any

import torch


@torch.no_grad()
def average_(averages: Any, currents: Any, step: int, decay: float) -> None:
    """Move averages towards the current values; the decay grows to `decay` with the steps, so that
    a short run is not mostly its start. What is not floating (counts, tables) is copied."""
    decay = min(decay, (1 + step) / (10 + step))
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, currents, 1 - decay)
    else:
        torch._foreach_copy_(averages, currents)
