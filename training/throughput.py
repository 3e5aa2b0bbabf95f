"""How fast it trains, and where the time goes: tokens/s, frames/s, MFU, data-wait."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import lightning as L
import torch

from training.order import OrderedLoader

# Dense bf16 peaks from the vendors' data sheets, FLOP/s.
GPU_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "4090": 165e12, "3090": 71e12}


@dataclass(frozen=True)
class Work:
    """What one batch holds; `flops` counts forward and backward of one optimizer step."""

    frames: int
    tokens: int
    flops: float


class CountsWork(Protocol):
    def work(self, batch: Any) -> Work: ...


@cache
def peak_flops(device: str) -> float:
    """FLOP/s that the device can reach: the data sheet's for known GPUs, else measured."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        for key, peak in GPU_PEAKS.items():
            if key in name:
                return peak
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    a = torch.rand(1024, 1024, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began))
    return best


class Throughput(L.Callback):
    """Logs perf/ and data/ metrics every `every_steps` steps, averaged since the last one.

    MFU = flops counted by the model (formula at its `work` method) / (seconds * peak);
    data-wait = share of the time in which the loop had no batch. Time spent in
    validation, checkpoints and media is left out.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self._reset()

    def _reset(self) -> None:
        self.seconds, self.wait_s, self.batches = 0.0, 0.0, 0
        self.frames, self.tokens, self.flops = 0, 0, 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._loader_wait = self._wait(trainer)
        self._began = time.perf_counter()
        self.since_start = 0

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        now, waited = time.perf_counter(), self._wait(trainer)
        self._waited = waited - self._loader_wait
        self._began, self._loader_wait = now - self._waited, waited

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.since_start += 1
        # The first batches of a process start workers and warm kernels up: not counted.
        if self.since_start <= 2:
            return
        work: Work = module.work(batch)
        self.seconds += time.perf_counter() - self._began
        self.wait_s += self._waited
        self.batches += 1
        self.frames += work.frames * trainer.world_size
        self.tokens += work.tokens * trainer.world_size
        self.flops += work.flops
        if trainer.global_step % self.every_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self.metrics(str(module.device)), step=trainer.global_step)
            self._reset()

    def metrics(self, device: str) -> dict[str, float]:
        return {
            "perf/tokens_per_s": self.tokens / self.seconds,
            "perf/frames_per_s": self.frames / self.seconds,
            "perf/step_time_s": self.seconds / self.batches,
            "perf/mfu": self.flops / self.seconds / peak_flops(device),
            "data/wait_share": self.wait_s / self.seconds,
        }

    @staticmethod
    def _wait(trainer: L.Trainer) -> float:
        loader = trainer.train_dataloader
        return loader.wait_s if isinstance(loader, OrderedLoader) else 0.0
