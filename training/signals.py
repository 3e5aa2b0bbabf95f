"""Leaving in good order when told to: save, say so, exit with a code that means "start me again".

SIGTERM (schedulers, before they kill), SIGUSR2 (submitit and `sbatch --signal=USR2@120`, before
the time is up) and SIGINT (Ctrl-C) only set a flag. The loop reads it after a batch, agrees on it
with the other ranks, saves, and leaves with code 75. A second signal sets the same flag again.
"""

import os
import signal
import subprocess
from types import FrameType
from typing import Any

import lightning as L
import torch

from training.saving import SaveCheckpoints
from training.status import slurm_job

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class Stopped(BaseException):
    """Training was told to stop and has saved; no fault, so nothing may catch it by accident."""

    def __init__(self, name: str, step: int, requeue: bool) -> None:
        super().__init__(name, step, requeue)
        self.name, self.step, self.requeue = name, step, requeue

    def __str__(self) -> str:
        then = "to be requeued" if self.requeue else "the same command goes on from there"
        return f"stopped by {self.name} after step {self.step}, which is saved; {then}"


class StopOnSignal(L.Callback):
    """Owns the signals while training, instead of Lightning's and submitit's handlers.

    Args:
        requeue: under Slurm, ask for the job to be started again after a SIGUSR2.
    """

    def __init__(self, saver: SaveCheckpoints, requeue: bool = True) -> None:
        self.saver, self.requeue = saver, requeue
        self.received = 0
        self._main = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        if trainer.world_size > 1:
            # On the CPU, so that agreeing costs the device no wait. Lightning's own broadcast of
            # SIGTERM waits for the device in every batch, for a handler that is no longer there.
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
            again = self.requeue and slurm_job() is not None and number == signal.SIGUSR2
            raise Stopped(signal.Signals(number).name, trainer.global_step, again)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._main:  # data workers inherit the handler
            self.received = number

    def _agreed(self, trainer: L.Trainer) -> int:
        """The signal that any rank has received; 0 if none has."""
        if trainer.world_size == 1:
            return self.received
        flag = torch.tensor(self.received)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(flag)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def requeue_job() -> str:
    """Ask Slurm to start this job again, which ends the running one; returns what went wrong."""
    job = slurm_job()
    assert job is not None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"could not requeue job {job} ({getattr(error, 'stderr', error)}); submit it again"
    return ""
