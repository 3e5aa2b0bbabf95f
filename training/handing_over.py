"""Data workers hand batches over through shared memory; a full one is named as the cause."""

import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

SHARED_MEMORY = Path("/dev/shm")


def shared(batch: Any) -> Any:
    """The batch; in a worker its tensors are moved to shared memory.

    PyTorch does it later, in a thread that drops errors: with full shared memory the loop would
    wait for ever.
    """
    if get_worker_info() is not None:
        _share(batch)
    return batch


def cause_of(error: BaseException) -> str:
    """Probable cause of a worker's failure, and its remedy."""
    message = str(error)
    known = ("shared memory", "shm", "Bus error", "No space left", "unable to write to file")
    if any(word in message for word in known) and SHARED_MEMORY.is_dir():
        total, _, free = shutil.disk_usage(SHARED_MEMORY)
        return (
            f"{SHARED_MEMORY} is too small for their batches ({total / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} free): give it more (docker run --shm-size=8g, mount -o "
            "remount,size=8g /dev/shm), or use data.num_workers=0"
        )
    return "often it ran out of memory: use fewer data.num_workers"


def last_line(error: BaseException) -> str:
    """A worker's error message, without its traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _share(value: Any) -> None:
    if isinstance(value, Tensor):
        value.share_memory_()
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _share(getattr(value, field.name))
    elif isinstance(value, dict):
        _share(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            _share(entry)
