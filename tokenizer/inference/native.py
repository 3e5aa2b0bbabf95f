"""The C functions of inference on CPUs, compiled at first use."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from training.disk.libraries import NoLibrary, compiled


class Convolved(ctypes.Structure):
    """A call of winograd.c: its struct `Call`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pixels", "weight", "bias", "plus", "made", "room")),
        *((name, ctypes.c_int64) for name in ("frames", "height", "width", "in", "out")),
        *((name, ctypes.c_int64) for name in ("threads", "up")),
    )


class Normalised(ctypes.Structure):
    """A call of norm_silu.c: its struct `Call`."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("pixels", "weight", "bias", "made", "sums", "affine")
        ),
        *((name, ctypes.c_int64) for name in ("frames", "area", "channels", "groups", "threads")),
        ("eps", ctypes.c_double),
    )


class Functions(NamedTuple):
    winograd: Callable[[Convolved], None]
    norm_silu: Callable[[Normalised], None]


def functions_for(x: Tensor) -> Functions | None:
    """The C functions, where they compute with such a tensor: float32 on a CPU, not compiled."""
    fits = x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    return _functions() if fits else None


def addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def pixels_of(x: Tensor) -> Tensor:
    """[n h w c] of images [n c h w], as the C functions read them; no copy if channels are last."""
    return x.permute(0, 2, 3, 1).contiguous()


@cache
def _functions() -> Functions | None:
    """None, with a note, where they cannot be compiled."""
    try:
        made = [_function("winograd", Convolved), _function("norm_silu", Normalised)]
    except NoLibrary as error:
        print(f"note: winograd=true: {error}; torch computes instead, slower")
        return None
    return Functions(*made)


def _function(name: str, call: type[ctypes.Structure]) -> Callable[..., None]:
    function = getattr(compiled(Path(__file__).with_name(f"{name}.c")), name)
    function.argtypes, function.restype = [ctypes.POINTER(call)], None
    return function
