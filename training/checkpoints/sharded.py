"""FSDP2: parameters, gradients and moments sharded over processes, and sharded checkpoints.

Every rank writes its pieces (torch.distributed.checkpoint, in safetensors, because its own format
is a pickle) into `shards/` of a checkpoint folder; the folder is committed by rank 0 once all
have. Another number of processes reads the same pieces, and one process puts them together
(`training.checkpoints.pieces`).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from training.checkpoints.folder import (
    MANIFEST_KEY,
    REFUSALS,
    SHARDS,
    begin,
    check_whole,
    commit,
    partial_of,
    prune,
    read_state,
    read_weights,
    save_state,
    writing,
)
from training.checkpoints.pieces import OPTIMIZER, WEIGHTS, moments_of, names_in
from training.errors import BadInput, NotSaved


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all processes. The module's `configure_model` chooses the units (`shard`).

    Args:
        keep: number of whole checkpoints to keep, the new one included.
    """

    def __init__(self, keep: int | None = None) -> None:
        super().__init__(tensor_parallel_size=1)
        self.keep = keep

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        path = Path(self.broadcast(filepath))
        state = dict(checkpoint)
        manifest = {**state.pop(MANIFEST_KEY), "step": state["global_step"]}
        pieces = {f"{WEIGHTS}/{name}": v for name, v in state.pop("state_dict").items()}
        optimizers = state.pop("optimizer_states", [])
        for i, optimizer in enumerate(optimizers):
            pieces |= moments_of(OPTIMIZER.format(i), optimizer)
        state["sharded_groups"] = [optimizer["param_groups"] for optimizer in optimizers]
        self._first_rank(path, lambda: begin(path))
        folder = partial_of(path) / SHARDS
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        refusal: BaseException | None = None
        try:
            dcp.save(pieces, storage_writer=writer)
        except CheckpointException as error:  # raised on every rank, whichever failed
            refusal = next(failure for failure, _ in error.failures.values())
            if not isinstance(refusal, REFUSALS):
                raise

        def finish() -> None:
            if refusal is not None:
                raise refusal
            save_state(state, partial_of(path))
            commit(path, manifest)

        self._first_rank(path, finish)
        if self.is_global_zero:
            prune(path, self.keep)

    def _first_rank(self, path: Path, work: Callable[[], Any]) -> None:
        """Rank 0 works, the others wait; on a disk error all raise NotSaved."""
        why = ""
        if self.is_global_zero:
            try:
                with writing(path):
                    work()
            except (NotSaved, BadInput) as failure:
                why = getattr(failure, "why", str(failure))
        why = self.broadcast(why)
        if why:
            raise NotSaved(path, why)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        path = Path(self.broadcast(checkpoint_path))
        check_whole(path)
        state = read_state(path)
        assert self.model is not None
        optimizers = [getattr(o, "optimizer", o) for o in self.optimizers]
        if not (path / SHARDS).is_dir():
            self._load_whole(path, state.pop("optimizer_states"), optimizers)
            return state
        weights = get_model_state_dict(self.model)
        states = [get_optimizer_state_dict(self.model, o) for o in optimizers]
        pieces = {f"{WEIGHTS}/{name}": v for name, v in weights.items()}
        for i, named in enumerate(states):
            pieces |= moments_of(OPTIMIZER.format(i), named)
        reader = HuggingFaceStorageReader(str(path / SHARDS))
        stored = {  # keys of an older release, by their names in this one
            "/".join(map(self._current_name, key.split("/"))): key
            for key in reader.read_metadata().state_dict_metadata
        }
        dcp.load(
            {stored.get(key, key): piece for key, piece in pieces.items()}, storage_reader=reader
        )
        set_model_state_dict(self.model, weights)
        groups = state.pop("sharded_groups")
        for optimizer, named, saved in zip(optimizers, states, groups, strict=True):
            named["param_groups"] = [
                {**group, "params": [self._current_name(name) for name in group["params"]]}
                for group in saved
            ]
            set_optimizer_state_dict(self.model, optimizer, named)
        return state

    def _current_name(self, name: str) -> str:
        """A module may rename parameters of older checkpoints."""
        rename = getattr(self.lightning_module, "current_name", None)
        return rename(name) if rename else name

    def _load_whole(self, path: Path, states: list[dict[str, Any]], optimizers: list[Any]) -> None:
        """Load a checkpoint written by one process."""
        assert self.model is not None
        whole = StateDictOptions(full_state_dict=True)
        found = read_weights(path, verify=False).items()
        weights: dict[str, Any] = {self._current_name(name): value for name, value in found}
        set_model_state_dict(self.model, weights, options=whole)
        for optimizer, saved in zip(optimizers, states, strict=True):
            mine: dict[str, Any] = get_optimizer_state_dict(self.model, optimizer)
            names = names_in(mine["param_groups"])
            groups = [
                {**group, "params": [names[i] for i in group["params"]]}
                for group in saved["param_groups"]
            ]
            state = {names[i]: value for i, value in saved["state"].items()}
            named: dict[str, Any] = {"state": state, "param_groups": groups}
            set_optimizer_state_dict(self.model, optimizer, named, options=whole)


def shard(units: Iterable[nn.Module], root: nn.Module, trainer: L.Trainer) -> None:
    """Under `FullySharded`: shard every unit, then the rest of `root`; else do nothing.

    A unit is gathered for its forward or backward pass and then freed; gradients are averaged.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, FullySharded):
        return
    mesh = strategy.device_mesh["data_parallel"]
    for unit in (*units, root):
        # The root too: after a validation, EMA and checkpoints expect shards.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def full_copy(module: nn.Module, make: Callable[[], nn.Module], trainer: L.Trainer) -> nn.Module:
    """The module itself, or a full copy where it is sharded; call it on every rank.

    Args:
        make: builds the module; only rank 0's copy gets the weights.
    """
    if not any(isinstance(p, DTensor) for p in module.parameters()):
        return module
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(module, options=options)
    copy = make()
    if trainer.is_global_zero:
        copy.load_state_dict(weights)
    return copy.to(trainer.strategy.root_device)
