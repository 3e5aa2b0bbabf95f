"""Stops a running training: after a batch the ranks agree on a received signal, save, and leave
(`training.stopping`).
"""

from typing import Any

import lightning as L
import torch

from training.checkpoints.saving import SaveCheckpoints
from training.stopping import watch


class StopOnSignal(L.Callback):
    """Turns a signal into a saved step and `Stopped`.

    Args:
        requeue: under Slurm, ask for the job to be started again after a SIGUSR2.
    """

    def __init__(self, saver: SaveCheckpoints, requeue: bool = True) -> None:
        self.saver, self.requeue = saver, requeue

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._alone = not watch.watches  # training without a command
        if self._alone:
            watch.start(at_once=False, requeue=self.requeue)
        watch.again()
        watch.at_once = False
        if trainer.world_size > 1:
            # On the CPU, to avoid a device wait. Lightning's own broadcast of SIGTERM waits for the
            # device in every batch, for a handler that we removed.
            self._group = torch.distributed.new_group(backend="gloo")
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % module.accumulate:
            return  # half of an accumulated gradient could not be saved
        number = self._agreed(trainer)
        if number:
            self.saver.save(trainer, must=True)
            raise watch.stopped(number, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        watch.at_once = True  # everything is saved
        self._restore()

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        self._restore()

    def _agreed(self, trainer: L.Trainer) -> int:
        """A signal received by any rank; 0 if none."""
        if trainer.world_size == 1:
            return watch.received
        flag = torch.tensor(watch.received)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(flag)

    def _restore(self) -> None:
        if getattr(self, "_alone", False):
            watch.end()
