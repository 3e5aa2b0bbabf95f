"""Training speed: tokens/s, frames/s, MFU, data-wait, goodput."""

import resource
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch

from training.disk.status import read_status, write_status
from training.loading.loader import OrderedLoader
from training.machine import GPUS
from training.watch.clock import now

TELL_S = 1.0  # how often the status learns how long a run has trained


@dataclass(frozen=True)
class Work:
    """The work of one batch; `flops` counts its forward and backward pass."""

    frames: int
    tokens: int
    flops: float
    flops_causal: float = 0.0  # the same, with attention counted causally; 0: no such attention


@cache
def peak_flops(device: str) -> float:
    """Peak FLOP/s of the device: from the data sheet for known GPUs, else measured."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        for key, (_, peak, _) in GPUS.items():
            if key.partition("-")[0].upper() in name:
                return peak
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    a = torch.ones(1024, 1024, device=device, dtype=dtype)  # no random numbers: they are the run's
    best = 0.0
    for _ in range(5):
        began = now(device)
        a @ a
        best = max(best, 2 * 1024**3 / (now(device) - began))
    return best


class Throughput(L.Callback):
    """Logs one row every `every_steps` steps: losses, speed, and use of time.

    perf/ and data/ are averages since the last row. MFU = FLOPs counted by the model (formula at
    its `work` method) / (seconds * peak). `mfu_causal` counts only the half of the attention that
    a causal mask leaves. Data-wait = share of the time that the loop waits for a batch. All of
    these exclude validation, checkpoints and media. Goodput = seconds of the steps behind the
    current parameters / seconds since the run first trained, over all restarts; it counts steps
    lost by a crash as lost. The status tells these seconds every second or every step, for a
    process that is killed tells nothing any more.
    """

    def __init__(self, every_steps: int, folder: Path) -> None:
        self.every_steps, self.folder = every_steps, Path(folder)
        self.kept_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self.seconds, self.wait_s, self.batches = 0.0, 0.0, 0
        self.frames, self.tokens, self.flops, self.flops_causal = 0, 0, 0.0, 0.0

    def state_dict(self) -> dict[str, float]:
        return {"kept_s": self.kept_s}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.kept_s = state_dict["kept_s"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._loader_wait = self._wait(trainer)
        self._began = self._started = self._told = time.perf_counter()
        status = read_status(self.folder)
        # A lost status knows no earlier attempts; they lasted at least the kept time.
        self._alive_before = max(float(status.get("alive_s", 0.0)), self.kept_s)
        self.since_start = 0
        if trainer.is_global_zero:
            attempts = int(status.get("attempts", 0)) + 1
            write_status(self.folder, attempts=attempts, step=trainer.global_step)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        now, waited = time.perf_counter(), self._wait(trainer)
        self._waited = waited - self._loader_wait
        self._began, self._loader_wait = now - self._waited, waited

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.since_start += 1
        ready = (batch_idx + 1) % module.accumulate == 0
        due = ready and trainer.global_step % self.every_steps == 0
        # A row counts the work that its batches gave to a GPU, and none of before.
        settled = due or self.since_start <= 2
        seconds = (now(module.device) if settled else time.perf_counter()) - self._began
        self.kept_s += seconds
        # The first batches of a process start workers and warm kernels up: not in the averages,
        # but for rows that hold no others.
        if self.since_start == 3:
            self._reset()
        work: Work = module.work(batch)
        self.seconds += seconds
        self.wait_s += self._waited
        self.batches += 1
        self.frames += work.frames * trainer.world_size
        self.tokens += work.tokens * trainer.world_size
        self.flops += work.flops
        self.flops_causal += work.flops_causal or work.flops
        if due:
            self._log(trainer, module)
        elif trainer.is_global_zero and time.perf_counter() - self._told >= TELL_S:
            self._tell(trainer)

    def _log(self, trainer: L.Trainer, module: Any) -> None:
        learnt = _averaged_over_ranks(_learnt(trainer))
        row = {**learnt, **self.metrics(module.device), **self._stability(trainer)}
        if trainer.is_global_zero:
            row["perf/goodput"] = self.kept_s / self._tell(trainer)
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)
        self._reset()

    def _tell(self, trainer: L.Trainer) -> float:
        """Write to the status how long the run has trained, in seconds, and return it."""
        self._told = time.perf_counter()
        alive = self._alive_before + self._told - self._started
        write_status(self.folder, step=trainer.global_step, alive_s=round(alive, 3))
        return alive

    def metrics(self, device: torch.device) -> dict[str, float]:
        """Averages since the last row."""
        peak = self.seconds * peak_flops(str(device))
        return {
            "perf/tokens_per_s": self.tokens / self.seconds,
            "perf/frames_per_s": self.frames / self.seconds,
            "perf/step_time_s": self.seconds / self.batches,
            "perf/mfu": self.flops / peak,
            "perf/mfu_causal": self.flops_causal / peak,
            "perf/peak_memory_gb": peak_memory(device) / 1e9,
            "data/wait_share": self.wait_s / self.seconds,
        }

    @staticmethod
    def _stability(trainer: L.Trainer) -> dict[str, float]:
        loader = trainer.train_dataloader
        corrupt = loader.num_corrupt if isinstance(loader, OrderedLoader) else 0
        return {"data/corrupt_samples": corrupt}

    @staticmethod
    def _wait(trainer: L.Trainer) -> float:
        loader = trainer.train_dataloader
        return loader.wait_s if isinstance(loader, OrderedLoader) else 0.0


def _learnt(trainer: L.Trainer) -> dict[str, float]:
    found = trainer.callback_metrics.items()
    return {key: float(value) for key, value in sorted(found) if key.startswith("train/")}


def _averaged_over_ranks(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics of a single process with the whole batch."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return metrics
    backend = torch.distributed.get_backend()
    device = "cuda" if backend == "nccl" else "cpu"
    values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(values)
    values /= torch.distributed.get_world_size()
    return dict(zip(metrics, values.tolist(), strict=True))


def peak_memory(device: torch.device) -> int:
    """Peak bytes allocated on the GPU so far; on a CPU, peak bytes of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
