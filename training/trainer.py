"""The Lightning trainer, with our order, checkpoints, signals, guards and rows."""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.profilers import (
    AdvancedProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig

from training.checkpoints.exact_resume import RandomStates
from training.checkpoints.saving import FolderCheckpointIO, SaveCheckpoints
from training.checkpoints.sharded import FullySharded
from training.cli import plain
from training.config import MuonConfig
from training.errors import BadInput
from training.machine import num_devices
from training.optimization.optimizers import block_matrices
from training.settings import built_entries
from training.watch.faults import WatchFinite
from training.watch.loggers import JsonlLogger, StatusLogger, Wandb
from training.watch.rows import METRICS_FILE
from training.watch.signals import StopOnSignal
from training.watch.throughput import Throughput
from training.watch.validation import DueValidation

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def build_trainer(cfg: DictConfig, run: Any, datamodule: Any, module: Any) -> L.Trainer:
    """A trainer whose every unit is an optimizer step.

    Raises:
        BadInput: settings that exclude each other.
    """
    quiet()
    settings = plain(cfg.trainer)
    settings["max_steps"] = steps = capped_steps(cfg, datamodule)
    # A run that is shorter than the interval is validated at its end.
    batches, interval = steps * settings["accumulate_grad_batches"], settings["val_check_interval"]
    settings["val_check_interval"] = min(interval, batches)
    check_optimizer(cfg, module)
    settings["strategy"] = strategy(cfg, module)
    if not module.automatic_optimization:
        settings["accumulate_grad_batches"] = 1  # the module does it by hand
    every = settings.pop("log_every_n_steps")
    if name := settings["profiler"]:
        settings["profiler"] = PROFILERS[name](dirpath=run.folder, filename="profile")
    io = FolderCheckpointIO(cfg.checkpoints.background, cfg.checkpoints.keep)
    # Ours is the only handler of signals; Lightning's saves in the middle of a step.
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    acting = callbacks(cfg, run.folder, io, every)
    return L.Trainer(
        **settings,
        default_root_dir=run.folder,
        logger=loggers(cfg, run),
        log_every_n_steps=0,  # Throughput writes one row with everything in it
        callbacks=acting,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in acting),
        plugins=[io, *slurm],
        use_distributed_sampler=False,
        max_epochs=-1,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
    )


def callbacks(cfg: DictConfig, folder: Path, io: FolderCheckpointIO, every: int) -> list[Callback]:
    """Ours, which every run needs, and the entries of `callbacks`."""
    saver = SaveCheckpoints(folder / "checkpoints", io, cfg.checkpoints.every_steps)
    return [
        RandomStates(cfg.seed),
        WatchFinite(folder / "faults", cfg.max_skipped_steps),
        Throughput(every, folder),
        saver,
        DueValidation(folder),
        *built_entries(cfg, "callbacks", Callback),
        StopOnSignal(saver, cfg.requeue),
    ]


def loggers(cfg: DictConfig, run: Any) -> list[Logger]:
    """The file of the rows and the status, which are always kept, and the entries of `logger`."""
    found = built_entries(cfg, "logger", Logger)
    for logger in found:
        if isinstance(logger, Wandb):
            logger.name_run(run.id, run.config)
    return [JsonlLogger(run.folder / METRICS_FILE), StatusLogger(run.folder), *found]


def strategy(cfg: DictConfig, module: Any) -> str | Strategy:
    """The strategy by which several processes train one model.

    Raises:
        BadInput: a strategy that cannot do what else is asked.
    """
    name, devices = cfg.trainer.strategy, num_devices(cfg.trainer)
    if name == "fsdp":
        if cfg.checkpoints.background:
            raise BadInput(
                "checkpoints.background=true with trainer=fsdp: shards are written by all "
                "ranks together, in the foreground; leave one of the two out"
            )
        if not module.shardable:
            raise BadInput(
                "trainer=fsdp: this model samples from a second network in every step, or learns "
                "the bits of its weights, which cannot be sharded; use trainer=ddp"
            )
        return FullySharded(cfg.checkpoints.keep)
    if name == "ddp" or devices > 1:
        unused = module.find_unused_parameters
        return DDPStrategy(find_unused_parameters=unused, gradient_as_bucket_view=True)
    return "auto"


def check_optimizer(cfg: DictConfig, module: Any) -> None:
    """BadInput where Muon cannot train the network, or not in shards."""
    if not isinstance(module.optimizer_config, MuonConfig):
        return
    if cfg.trainer.strategy == "fsdp":
        raise BadInput(
            "optimizer=muon with trainer=fsdp: it orthogonalises whole matrices, and shards are "
            "parts of them; take optimizer=adamw, or trainer=ddp"
        )
    block_matrices(module.trained)


def capped_steps(cfg: DictConfig, datamodule: Any) -> int:
    """`trainer.max_steps`, or fewer where the data would be seen more than `max_passes` times."""
    steps = int(cfg.trainer.max_steps)
    if not cfg.max_passes:
        return steps
    each = datamodule.batch_size * cfg.trainer.accumulate_grad_batches
    samples = cfg.max_passes * len(datamodule.dataset("train"))
    limit = max(1, int(samples / (each * num_devices(cfg.trainer))))
    if limit < steps:
        print(
            f"note: {limit} steps instead of {steps}, so that the model does not memorise: the "
            f"data is seen at most {cfg.max_passes:g} times (max_passes)"
        )
    return min(steps, limit)


def quiet() -> None:
    """Silence what says nothing to our users."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # The network that an occupancy model bootstraps from samples without dropout.
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
    # The loss reads the logits and changes none of them in place.
    warnings.filterwarnings("ignore", ".*returned a view tensor.*")
    for name in ("pytorch.utilities.rank_zero", "pytorch.trainer", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
