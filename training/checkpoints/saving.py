"""Saves checkpoints during training and removes old ones."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from training.checkpoints.folder import (
    MANIFEST_KEY,
    SHARDS,
    STATE,
    check_whole,
    newest_first,
    prune,
    read_state,
    read_weights,
    step_of,
    write_checkpoint,
)
from training.checkpoints.manifests import check_resumable
from training.checkpoints.pieces import whole_optimizers
from training.errors import BadInput, NotSaved, TrainingFault
from training.watch.faults import check_finite


class FolderCheckpointIO(CheckpointIO):
    """Saves and loads checkpoint folders for Lightning.

    A failed save does not raise here: under DDP only rank 0 writes, and the others would wait for
    it. `lost` returns the failures; `teardown` raises those left.

    Args:
        background: copy the tensors, then write from a thread while training continues. The
            next save waits for the last one.
        keep: number of whole checkpoints to keep, the new one included; None keeps all.
    """

    def __init__(self, background: bool = False, keep: int | None = None) -> None:
        self.background, self.keep = background, keep
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._lost: list[NotSaved] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        self.wait()
        state = dict(checkpoint)
        weights, manifest = state.pop("state_dict"), state.pop(MANIFEST_KEY)
        manifest = {**manifest, "step": checkpoint["global_step"]}
        if not self.background:
            self._write(Path(path), weights, manifest, state)
            return
        weights, state = copied(weights), copied(state)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending = self._thread.submit(self._write, Path(path), weights, manifest, state)

    def wait(self) -> None:
        """Wait until the current save is on the disk or has failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def lost(self) -> list[NotSaved]:
        """The failed saves since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def lose(self, failure: NotSaved) -> None:
        """Record a failed save."""
        self._lost.append(failure)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        check_resumable(folder, STATE in check_whole(folder)["files"])
        state = read_state(folder)
        if "sharded_groups" in state:
            groups = state.pop("sharded_groups")
            state["optimizer_states"] = whole_optimizers(folder / SHARDS, groups)
        return {**state, "state_dict": read_weights(folder, verify=False)}

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)

    def teardown(self) -> None:
        self.wait()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        for failure in self.lost():
            raise failure

    def _write(
        self, path: Path, weights: dict[str, Any], manifest: dict[str, Any], state: dict[str, Any]
    ) -> None:
        try:
            write_checkpoint(path, weights, manifest, state)
        except NotSaved as failure:
            self.lose(failure)
        else:
            prune(path, self.keep)


class SaveCheckpoints(Checkpoint):
    """Saves every `every_steps` and at the end; rewrites a damaged checkpoint of a step.

    After a failed save, as on a full disk, older checkpoints remain, training continues and the
    next save is tried when due. The last save, and a save after a signal, raise.

    Attributes:
        stall_s: seconds that saving has stopped the loop.
    """

    def __init__(self, folder: Path, io: FolderCheckpointIO, every_steps: int = 1000) -> None:
        if io.keep is not None and io.keep < 2:
            raise BadInput(f"checkpoints.keep={io.keep}: keep at least 2, one may turn out damaged")
        self.folder, self.io, self.every_steps = Path(folder), io, every_steps
        self.stall_s = 0.0
        self._last_saved = -1

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last_saved = trainer.global_step  # what it was resumed from
        if trainer.is_global_zero:
            for folder in newest_first(self.folder):
                if step_of(folder) > trainer.global_step:
                    _stands(folder)  # or `keep` would count it

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        step, last = trainer.global_step, trainer.global_step == trainer.max_steps
        if step != self._last_saved and (step % self.every_steps == 0 or last):
            self.save(trainer, must=last)

    def save(self, trainer: L.Trainer, must: bool = False) -> None:
        """Save this step, unless it is saved already.

        Args:
            must: wait until it is on the disk, and raise if it fails.

        Raises:
            NotSaved: the save failed and `must` is True.
        """
        began, step = time.perf_counter(), trainer.global_step
        path = self.folder / f"step-{step:07d}"
        check_finite(trainer, wait=True)
        if must:  # this very step may have been lost in the background
            self._tell(trainer, self._hear(trainer, wait=True))
        if step != self._last_saved:
            self._last_saved = step
            if not self._agreed(trainer, lambda: _stands(path)):
                self._save(trainer, path)
        failures = self._hear(trainer, wait=must)
        last = failures.pop(path, None) if must else None
        self._tell(trainer, failures)
        if last is not None:
            raise last
        stall = time.perf_counter() - began
        self.stall_s += stall
        for logger in trainer.loggers:
            logger.log_metrics({"ckpt/stall_s": stall, "ckpt/step": step}, step=step)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._tell(trainer, self._hear(trainer, wait=True))
        saved = newest_first(self.folder)
        if trainer.is_global_zero and saved:
            try:
                check_whole(saved[0])
            except BadInput as error:
                raise TrainingFault(f"{error}; start the same command again") from error

    def _save(self, trainer: L.Trainer, path: Path) -> None:
        try:
            trainer.save_checkpoint(path)
        except NotSaved as failure:  # of shards, which all ranks write: raised in all of them
            self.io.lose(failure)

    def _hear(self, trainer: L.Trainer, wait: bool) -> dict[Path, NotSaved]:
        """The saves that failed, by checkpoint; every rank hears the same."""
        if wait:
            self.io.wait()
        lost = [(failure.path, failure.why) for failure in self.io.lost()]
        failures = {path: NotSaved(path, why) for path, why in trainer.strategy.broadcast(lost)}
        if self._last_saved in map(step_of, failures):
            self._last_saved = -1  # to be tried again
        return failures

    def _tell(self, trainer: L.Trainer, failures: dict[Path, NotSaved]) -> None:
        if trainer.is_global_zero:
            for failure in failures.values():
                print(f"warning: {failure}; older checkpoints are whole, training goes on")

    def _agreed(self, trainer: L.Trainer, ask: Callable[[], bool]) -> bool:
        """The answer of rank 0, on every rank."""
        return bool(trainer.strategy.broadcast(ask() if trainer.is_global_zero else False))


def _stands(path: Path) -> bool:
    """Whether a whole checkpoint exists; renames a damaged one."""
    if not path.exists():
        return False
    try:
        check_whole(path)
    except BadInput as error:
        aside = path.with_name(f".{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f"warning: {error}. It is now {aside.name} and will be written again")
        return False
    return True


def copied(value: Any) -> Any:
    """A copy of nested dicts and lists, with tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, copied(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value
