"""Clean exit on signals, with an exit code that means "start again".

SIGTERM (schedulers, before they kill), SIGUSR2 (submitit and `sbatch --signal=USR2@120`, before
the time is up) and SIGINT (Ctrl-C). While data and model are made, they end the run at once;
finished data is kept. During training they only set a flag (`training.watch.signals`). Imports
nothing heavy, so that signals are handled while torch loads.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from omegaconf import DictConfig

from training.cli import run_folder
from training.disk.folders import held_by_another
from training.disk.status import STOPPED, slurm_job, write_status

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class Stopped(BaseException):
    """A signal asked a run to stop. Not an `Exception`, so nothing catches it by accident.

    Attributes:
        step: the saved step; None outside training.
        requeue: whether Slurm should start the job again.
    """

    def __init__(self, name: str, step: int | None = None, requeue: bool = False) -> None:
        super().__init__(name, step, requeue)
        self.name, self.step, self.requeue = name, step, requeue

    def __str__(self) -> str:
        then = "to be requeued" if self.requeue else "the same command goes on from there"
        saved = "" if self.step is None else f" after step {self.step}, which is saved"
        return f"stopped by {self.name}{saved or ' while it was not training'}; {then}"


class SignalWatch:
    """Handles the signals of this process, in place of Lightning's and submitit's handlers.

    Attributes:
        received: the last signal; 0: none.
        at_once: raise `Stopped` at the first signal; else only note it.
        requeue: under Slurm, requeue the job after a SIGUSR2.
    """

    def __init__(self) -> None:
        self.received, self.at_once, self.requeue = 0, True, True
        self._before: dict[signal.Signals, Any] = {}

    @property
    def watches(self) -> bool:
        return bool(self._before)

    def start(self, at_once: bool, requeue: bool) -> None:
        self.received, self.at_once, self.requeue = 0, at_once, requeue
        self._main = os.getpid()
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def again(self) -> None:
        """Handle the signals again: Lightning's own handler, put over this one, ends a run in the
        middle of an accumulated gradient."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def end(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stopped(self, number: int, step: int | None = None) -> Stopped:
        """The `Stopped` for a signal."""
        again = self.requeue and slurm_job() is not None and number == signal.SIGUSR2
        return Stopped(signal.Signals(number).name, step, again)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._main:  # data workers inherit the handler
            return
        first, self.received = not self.received, number
        if first and self.at_once:  # a second signal must not interrupt the first one's exit
            raise self.stopped(number)


watch = SignalWatch()


@contextmanager
def in_good_order(cfg: DictConfig) -> Iterator[None]:
    """Runs the block; a signal ends it cleanly at any time.

    Raises:
        SystemExit: with code 75, where a signal came before or after training.
    """
    watch.start(at_once=True, requeue=cfg.requeue)
    try:
        yield
    except Stopped as stop:
        folder = run_folder(cfg)
        if not _helps_another_rank() and not held_by_another(folder):
            why = {"state": "stopped", "reason": str(stop), "exit_code": STOPPED}
            write_status(folder, **why, job=slurm_job())
        leave(stop)
    finally:
        watch.end()


def leave(stop: Stopped) -> NoReturn:
    """Exit with the code that means "start again"; requeue the job under Slurm."""
    from training.machine import is_helper_of_rank_zero  # loads torch

    if not _helps_another_rank():
        print(f"\n{stop}", flush=True)
        problem = requeue_job() if stop.requeue else ""
        if problem:
            print(f"warning: {problem}", flush=True)
    raise SystemExit(0 if is_helper_of_rank_zero() else STOPPED)


def _helps_another_rank() -> bool:
    from training.machine import launched_rank  # loads torch

    return launched_rank() > 0


def requeue_job() -> str:
    """Requeue this Slurm job, which ends the running one; returns the error message."""
    job = slurm_job()
    assert job is not None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"could not requeue job {job} ({getattr(error, 'stderr', error)}); submit it again"
    return ""
