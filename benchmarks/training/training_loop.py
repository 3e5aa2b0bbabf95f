"""Overhead of our training loop over a bare one, and the stall of a checkpoint.

The bare loop uses the same model, batches and optimizer, without Lightning, callbacks, logs and
checks.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from benchmarks import Row
from training.checkpoints.saving import SaveCheckpoints
from training.optimization.optimizers import build_optimizer
from training.run import build_data, build_model, build_trainer, open_run

ROOT = Path(__file__).parents[2]
STEPS, WARM, ROUNDS = 24, 4, 3
SAVE_EVERY = 8


class StepTimes(L.Callback):
    """Seconds from the start of one batch to the start of the next, all callbacks included."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.stamps.append(time.perf_counter())

    @property
    def mean(self) -> float:
        return (self.stamps[-1] - self.stamps[WARM]) / (len(self.stamps) - 1 - WARM)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        data = ROOT / "data"
        loop, wait, bare = float("inf"), 0.0, float("inf")
        for number in range(ROUNDS):
            extra = (f"run={folder}/loop-{number}", "checkpoints.every_steps=999")
            cfg = _config(folder, data, *extra)
            times, trainer = _trained(cfg)
            if times.mean < loop:
                loop, wait = times.mean, trainer.train_dataloader.wait_s / STEPS
            bare = min(bare, _bare(cfg))
        stalls = {background: _stall(folder, data, background) for background in (False, True)}
    yield Row(
        "what our loop adds to a step of gpt_tiny",
        f"{(loop - bare) * 1e3:.1f} ms",
        f"a bare PyTorch loop, {bare * 1e3:.1f} ms a step",
        loop / bare - 1,
    )
    share = wait / loop
    yield Row("waiting for data", f"{wait * 1e3:.2f} ms", f"a step, {loop * 1e3:.1f} ms", share)
    for background, (stall, step) in stalls.items():
        kind = "in the background" if background else "in the foreground"
        every = step * _recipe_interval(data, folder)
        name = f"a checkpoint of gpt_tiny written {kind}, of the steps between two"
        yield Row(name, f"{stall * 1e3:.0f} ms", f"{every:.0f} s", stall / every)


def _config(folder: str, data: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(
            "train",
            overrides=[
                "+experiment=gpt_tiny",
                f"paths.runs={folder}",
                f"paths.data={data}",
                "logger=none",
                "callbacks.progress_bar.refresh_rate=0",
                "callbacks.media=null",
                f"trainer.max_steps={STEPS}",
                "trainer.val_check_interval=999",
                *overrides,
            ],
        )


def _recipe_interval(data: Path, folder: str) -> int:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return int(compose("train", overrides=["+experiment=gpt_tiny"]).checkpoints.every_steps)


def _trained(cfg: DictConfig) -> tuple[StepTimes, Any]:
    times = StepTimes()
    run = open_run(cfg)
    datamodule = build_data(cfg)
    module = build_model(cfg, datamodule)
    trainer = build_trainer(cfg, run, datamodule, module)
    trainer.callbacks.append(times)  # type: ignore[attr-defined]
    run.describe(datamodule, module)
    run.fit(trainer, module, datamodule)
    return times, trainer


def _bare(cfg: DictConfig) -> float:
    """Mean seconds of a step without any framework."""
    datamodule = build_data(cfg)
    module = build_model(cfg, datamodule)
    network = module.network.train()
    optimizer, schedule = build_optimizer(network, module.optimizer_config, STEPS)
    windows = datamodule.dataset("train")
    from training.loading.order import sample_ids
    from worldmodel.windows import collate

    stamps = []
    for step in range(STEPS):
        stamps.append(time.perf_counter())
        ids = sample_ids(0, step * datamodule.batch_size, datamodule.batch_size, len(windows))
        clip = collate([windows[i] for i in ids])
        drop, _ = module.conditions.draw(len(clip.tokens), clip.tokens.device)
        network.loss(clip.tokens, clip.actions, drop).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return (stamps[-1] - stamps[WARM]) / (len(stamps) - 1 - WARM)


def _stall(folder: str, data: Path, background: bool) -> tuple[float, float]:
    """Seconds that one checkpoint stops the loop for, and seconds of a step."""
    extra = (
        f"run={folder}/stall-{background}",
        f"checkpoints.every_steps={SAVE_EVERY}",
        f"checkpoints.background={str(background).lower()}",
    )
    times, trainer = _trained(_config(folder, data, *extra))
    saver = next(c for c in trainer.callbacks if isinstance(c, SaveCheckpoints))
    return saver.stall_s / (STEPS // SAVE_EVERY), times.mean
