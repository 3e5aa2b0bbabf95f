"""Data workers hand batches over: small ones by value, large ones through shared memory.

A tensor in shared memory costs a file, its pages and a socket: half a millisecond where the values
of a batch of tokens take a tenth. A full shared memory is named as the cause.
"""

import io
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

SHARED_MEMORY = Path("/dev/shm")
SMALL = 2**19  # bytes
# Kinds that numpy has too: the others (bfloat16) go through shared memory.
NUMPY_KINDS = {torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32, torch.float64}


def shared(batch: Any) -> Any:
    """The batch; in a worker it is made ready to be sent, and arrives as it was.

    PyTorch moves tensors to shared memory later, in a thread that drops errors: with full shared
    memory the loop would wait for ever.
    """
    if get_worker_info() is None:
        return batch
    tensors = list(_tensors(batch))
    plain = all(t.device.type == "cpu" and t.dtype in NUMPY_KINDS for t in tensors)
    if plain and sum(_sent_bytes(tensor) for tensor in tensors) <= SMALL:
        content = io.BytesIO()
        _ByValue(content, pickle.HIGHEST_PROTOCOL).dump(batch)
        return Sent(content.getvalue())
    for tensor in tensors:
        tensor.share_memory_()
    return batch


class Sent:
    """A pickled batch; unpickled by the loop's process, it is the batch itself."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (self.content,)


class _ByValue(pickle.Pickler):
    """Pickles tensors as arrays, and integers that fit in 16 bits as these: tokens mostly do."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor:
            return NotImplemented
        array = value.detach().numpy()
        if array.dtype == np.int64 and array.size and array.min() >= 0 and array.max() < 2**16:
            return _opened, (array.astype(np.uint16), np.int64)
        return _opened, (np.ascontiguousarray(array), array.dtype.type)


def _opened(array: np.ndarray, kind: type) -> Tensor:
    return torch.from_numpy(array.astype(kind))  # a copy: unpickled arrays may be read-only


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


def _sent_bytes(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.dtype == torch.int64 else tensor.element_size())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)
