"""The settings of train.py, judged before any work."""

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from training.cli import judge, plain
from training.config import TRAINING
from training.disk.places import writable_folder
from training.errors import BadInput


def check_settings(cfg: DictConfig) -> None:
    """Judge the settings of a run, those of model, media and doctor by building their parts.

    Raises:
        BadInput: names the setting and what it takes.
    """
    judge(cfg, TRAINING)
    if cfg.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise BadInput(f"trainer.accelerator={cfg.trainer.accelerator}: no GPU is to be seen here")
    datamodule_of(cfg)
    for group in (*cfg.model.values(), cfg.media, cfg.get("doctor")):
        if isinstance(group, DictConfig) and "_target_" in group:
            instantiate(group, _convert_="object")


def datamodule_of(cfg: DictConfig) -> Any:
    """The data module of a config, which has read nothing yet; `data.root` is its source's."""
    return instantiate(
        {k: v for k, v in plain(cfg.data).items() if k != "root"}, _convert_="object"
    )


def check_places(cfg: DictConfig) -> None:
    """BadInput where the run folder or that of the data cannot be written."""
    writable_folder("run", cfg.run)
    writable_folder("paths.data", cfg.paths.data)
