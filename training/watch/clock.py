"""Wall-clock time of work that a GPU may still be at."""

import time

import torch


def now(device: torch.device | str) -> float:
    """Seconds, read when the device has done all it was given; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
