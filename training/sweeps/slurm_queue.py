"""Waits for the jobs of a sweep by asking Slurm's queue, until every job has ended.

submitit asks Slurm's accounting every ten minutes. Without accounting, it would wait forever for
a dead job. Also, its launcher stops waiting for all jobs when the first one fails.
"""

import shlex
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from training.cli import fail

# Final states of a job; a requeued job is PENDING again.
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
)
FORGOTTEN = "FORGOTTEN"  # Slurm forgets a job some minutes after its end (MinJobAge)
ASK = ("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T")


def job_states(listing: str) -> dict[str, str]:
    """State by job id, from the output of `ASK`."""
    rows = [line.split() for line in listing.splitlines() if line.strip()]
    return {row[0]: row[1] for row in rows}


class WatchQueue(Callback):
    """Replaces submitit's watcher by ours, and refuses settings that Slurm cannot start."""

    every_s = 10

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        reason = unstartable(config)
        if reason:
            fail(reason)  # Hydra turns an exception of a callback into a warning
        from submitit.slurm import slurm

        slurm.SlurmJob.watcher = make_watcher(self.every_s)
        print(
            "submitting; the jobs go on when this command is interrupted. Their state: "
            f"python -m training.sweeps {shlex.quote(str(Path(config.hydra.sweep.dir)))}"
        )


def unstartable(config: DictConfig) -> str | None:
    """Why Slurm would start another number of processes than the trainer expects, or None."""
    devices = config.trainer.devices if "trainer" in config else 1
    raw = config.hydra.launcher._get_node("tasks_per_node")
    if raw._is_interpolation():
        if not isinstance(devices, int):
            return (
                f"trainer.devices={devices}: say how many processes a node gets, "
                "trainer.devices=8: Slurm has to start that many"
            )
        return None
    if isinstance(devices, int) and devices != raw._value():
        return (
            f"trainer.devices={devices}: Slurm would start "
            f"{raw._value()} process(es) per node; choose hydra/launcher=slurm_multinode"
        )
    return None


def make_watcher(every_s: int) -> Any:
    """A submitit watcher that asks squeue, at most every `every_s` seconds."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            return list(ASK) if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            text = string if isinstance(string, str) else string.decode()
            states = job_states(text)
            return {job: {"State": states.get(job, FORGOTTEN)} for job in self._registered}

        def is_done(self, job_id: str, mode: str = "standard") -> bool:
            """Whether all jobs of the sweep have ended.

            The launcher asks this for a job without a result, and raises if it is true. A true
            answer for one job alone would end the wait for the others.
            """
            self.get_state(job_id, mode=mode)
            states = [self.get_state(job, mode="cache") for job in sorted(self._registered)]
            return all(state in (*ENDED, FORGOTTEN) for state in states)

    return QueueWatcher(delay_s=every_s)
