"""When checkpoints are written, by whom, and what happens to the old ones."""

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from training.checkpoints import (
    MANIFEST_KEY,
    STATE,
    newest_first,
    partial_of,
    read_manifest,
    read_state,
    read_weights,
    write_checkpoint,
)
from training.errors import BadInput, TrainingFault
from training.faults import check_finite


class FolderCheckpointIO(CheckpointIO):
    """Teaches Lightning to save and load checkpoint folders.

    Args:
        background: copy the tensors, then write from a thread while training goes on. The
            next save waits for the last one, and raises if that failed.
        keep: finished checkpoints beside the new one that survive it; None keeps all.
    """

    def __init__(self, background: bool = False, keep: int | None = None) -> None:
        self.background, self.keep = background, keep
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

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
        """Until what is being written is on the disk; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        if STATE not in read_manifest(folder)["files"]:
            raise BadInput(f"ckpt={folder}: an export without optimizer state cannot be resumed")
        state = read_state(folder)
        if "sharded_groups" in state:
            from training.sharded import whole_optimizers

            groups = state.pop("sharded_groups")
            state["optimizer_states"] = whole_optimizers(folder, groups)
        return {**state, "state_dict": read_weights(folder)}

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)

    def teardown(self) -> None:
        self.wait()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _write(
        self, path: Path, weights: dict[str, Any], manifest: dict[str, Any], state: dict[str, Any]
    ) -> None:
        try:
            write_checkpoint(path, weights, manifest, state)
        except BaseException:
            shutil.rmtree(partial_of(path), ignore_errors=True)
            raise
        prune(path, self.keep)


def prune(newest: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` beside a checkpoint that is now durable."""
    for old in newest_first(newest.parent)[keep:] if keep else []:
        if old != newest:
            shutil.rmtree(old)
    for partial in newest.parent.glob(".step-*.partial"):
        shutil.rmtree(partial)  # left by a run that was killed while writing


class SaveCheckpoints(Checkpoint):
    """Saves every `every_steps` and at the end.

    A save that fails, as on a full disk, costs nothing that was there: training goes on and
    tries again when the next one is due. The last one, and one asked for by a signal, raise.

    Attributes:
        stall_s: seconds that the loop has stood still for it.
    """

    def __init__(self, folder: Path, io: FolderCheckpointIO, every_steps: int = 1000) -> None:
        if io.keep is not None and io.keep < 2:
            raise BadInput(f"checkpoints.keep={io.keep}: keep at least 2, one may turn out damaged")
        self.folder, self.io, self.every_steps = Path(folder), io, every_steps
        self.stall_s = 0.0
        self._last_saved = -1

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last_saved = trainer.global_step  # what it was resumed from

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        step, last = trainer.global_step, trainer.global_step == trainer.max_steps
        if step != self._last_saved and (step % self.every_steps == 0 or last):
            self.save(trainer, must=last)

    def save(self, trainer: L.Trainer, must: bool = False) -> None:
        """Save this step, unless it is saved already.

        Args:
            must: wait until it is on the disk, and raise if it cannot be.
        """
        began, step = time.perf_counter(), trainer.global_step
        path = self.folder / f"step-{step:07d}"
        check_finite(trainer, wait=True)
        try:
            if step != self._last_saved and not path.exists():
                trainer.save_checkpoint(path)
            if must:
                self.io.wait()
        except OSError as error:
            message = f"{path}: could not be written ({error}); free some space"
            if must:
                raise TrainingFault(message) from error
            print(f"warning: {message}; older checkpoints are whole, training goes on")
        else:
            self._last_saved = step
        stall = time.perf_counter() - began
        self.stall_s += stall
        for logger in trainer.loggers:
            logger.log_metrics({"ckpt/stall_s": stall, "ckpt/step": step}, step=step)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.io.wait()


def copied(value: Any) -> Any:
    """The same nest of dicts and lists, every tensor copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, copied(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value
