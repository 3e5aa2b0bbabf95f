"""Reads the parameters of a TorchScript archive without running its code.

`torch.jit.load` builds the archive's classes and runs their `__setstate__`. This module reads only
`data.pkl`, with an unpickler for tensors and plain attributes, and the tensors' bytes.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import BadInput
from training.foreign.weights import check_kind, check_stored

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive (torch's zip of a state dict is not)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their dotted names.

    Raises:
        BadInput: the archive is missing or damaged, or its pickle needs more than tensors.
    """
    try:
        check_stored(path)
        with zipfile.ZipFile(path) as archive:
            (entry,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            root = _Unpickler(archive, entry.removesuffix("data.pkl")).load()
            tensors = root.tensors() if isinstance(root, _Node) else None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    # A damaged pickle may raise nearly any exception; all become BadInput.
    except Exception as error:
        raise BadInput(f"{path}: is no readable TorchScript archive ({error!r})") from error
    if tensors is None:
        raise BadInput(f"{path}: holds a {type(root).__name__}, not a scripted module")
    check_kind(tensors, path)
    return tensors


class _Node:
    """An object of the archive: attributes without methods."""

    attributes: dict[str, Any]

    def __init__(self, *_: Any) -> None:
        self.attributes = {}

    def __new__(cls, *_: Any) -> "_Node":
        node = super().__new__(cls)
        node.attributes = {}
        return node

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, value in self.attributes.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Node):
                found |= value.tensors(f"{prefix}{name}.")
        return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}data.pkl"))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Node
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _first,
            ("torch.jit._pickle", "build_intlist"): _first,
            ("torch.jit._pickle", "build_doublelist"): _first,
            ("torch.jit._pickle", "build_boollist"): _first,
            ("torch.jit._pickle", "build_tensorlist"): _first,
            ("torch.jit._pickle", "restore_type_tag"): _first,
            ("collections", "OrderedDict"): dict,
        }
        if (module, name) not in allowed:
            raise BadInput(
                f"its pickle asks for {module}.{name}, which is refused: parameters need no code"
            )
        return allowed[module, name]

    def persistent_load(self, key: Any) -> Tensor:
        kind, dtype, name, _, count = key
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise BadInput(f"its pickle holds an unknown storage {key!r}")
        if name not in self.storages:
            data = bytearray(self.archive.read(f"{self.folder}data/{name}"))
            if len(data) != count * dtype.itemsize:
                raise BadInput(f"tensor data {name} has {len(data)} bytes, not {count} {dtype}")
            empty = torch.empty(0, dtype=dtype)
            self.storages[name] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self.storages[name]


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    # as_strided refuses a view beyond the storage.
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value
