"""Shards of a checkpoint, as torch.distributed.checkpoint keeps them, put together by one process.

Keys are `weights/NAME` and `optimizer_I/NAME/MOMENT`. No process group is needed to read them.
"""

import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS, OPTIMIZER = "weights", "optimizer_{}"


def read_whole(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder of shards, put together by this process alone."""
    found = _read(folder, f"{WEIGHTS}/")
    return {key.removeprefix(f"{WEIGHTS}/"): value for key, value in found.items()}


def whole_optimizers(
    folder: Path, sharded_groups: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Optimizer states as `torch.optim` saves them, from a folder of shards."""
    states = []
    for i, groups in enumerate(sharded_groups):
        prefix = f"{OPTIMIZER.format(i)}/"
        index = {name: number for number, name in enumerate(names_in(groups))}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _read(folder, prefix).items():
            name, moment = key.removeprefix(prefix).rsplit("/", 1)
            state.setdefault(index[name], {})[moment] = value
        numbered = [{**g, "params": [index[name] for name in g["params"]]} for g in groups]
        states.append({"state": state, "param_groups": numbered})
    return states


def names_in(groups: list[dict[str, Any]]) -> list[str]:
    """Names of all parameters in the order in which torch.optim numbers them."""
    return list(chain.from_iterable(group["params"] for group in groups))


def moments_of(prefix: str, optimizer: dict[str, Any]) -> dict[str, Tensor]:
    return {
        f"{prefix}/{name}/{moment}": value
        for name, moments in optimizer["state"].items()
        for moment, value in moments.items()
    }


def _read(folder: Path, prefix: str) -> dict[str, Tensor]:
    # A second to load, and few checkpoints have shards.
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    known = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in known.items()
        if key.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*assuming the intent is to load in a single process.*")
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors
