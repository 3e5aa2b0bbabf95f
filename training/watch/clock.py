"""Wall-clock time that includes pending work of a GPU."""

import time

import torch


def now(device: torch.device | str) -> float:
    """Seconds, read after the device has finished all its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
