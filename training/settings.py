"""The settings of train.py that no class of ours is built from, judged before any work."""

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from training.cli import plain
from training.disk.places import writable_folder
from training.errors import BadInput
from training.ranges import at_least, one_of, positive

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
SHORT_PRECISIONS = ("32", "16", "bf16", "64", 32, 16, 64)  # Lightning's other names for them
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def check_settings(cfg: DictConfig) -> None:
    """Judge the settings of a run, those of model, media and doctor by building their parts.

    Raises:
        BadInput: names the setting and what it takes.
    """
    plain(cfg)  # names what has no value
    trainer, checkpoints = cfg.trainer, cfg.checkpoints
    names = ("max_steps", "val_check_interval", "log_every_n_steps", "accumulate_grad_batches")
    for name in (*names, "num_nodes"):
        at_least(1, "trainer.", **{name: trainer[name]})
    if trainer.precision not in SHORT_PRECISIONS:
        one_of(PRECISIONS, "trainer.", precision=trainer.precision)
    one_of(ACCELERATORS, "trainer.", accelerator=trainer.accelerator)
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise BadInput(f"trainer.accelerator={trainer.accelerator}: no GPU is to be seen here")
    if isinstance(trainer.devices, int) and trainer.devices != -1:
        at_least(1, "trainer.", devices=trainer.devices)
    at_least(1, "checkpoints.", every_steps=checkpoints.every_steps)
    if checkpoints.keep is not None:
        at_least(2, "checkpoints.", keep=checkpoints.keep)
    at_least(0, seed=cfg.seed, max_skipped_steps=cfg.max_skipped_steps)
    at_least(0, "logger.", refresh_rate=cfg.logger.refresh_rate)
    if cfg.max_passes is not None:
        positive(max_passes=cfg.max_passes)
    for group in (*cfg.model.values(), cfg.loader, cfg.media, cfg.get("doctor")):
        if isinstance(group, DictConfig) and "_target_" in group:
            instantiate(group, _convert_="object")


def check_places(cfg: DictConfig) -> None:
    """BadInput where the run folder or that of the data cannot be written."""
    writable_folder("run", cfg.run)
    writable_folder("paths.data", cfg.paths.data)
