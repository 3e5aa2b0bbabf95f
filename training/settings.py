"""The settings of train.py, judged before any work."""

from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from training.cli import judge, plain
from training.disk.places import writable_folder
from training.errors import BadInput, first_line


def check_settings(cfg: DictConfig) -> None:
    """Judge the settings of a run, those of data, model, callbacks and loggers by building them.

    Raises:
        BadInput: names the setting and what it takes.
    """
    judge(cfg, "train")
    if cfg.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise BadInput(f"trainer.accelerator={cfg.trainer.accelerator}: no GPU is to be seen here")
    datamodule_of(cfg)
    built_entries(cfg, "callbacks", Callback)
    built_entries(cfg, "logger", Logger)
    for group in cfg.model.values():
        if isinstance(group, DictConfig) and "_target_" in group:
            instantiate(group, _convert_="object")


def built_entries(cfg: DictConfig, group: str, kind: type[Any]) -> list[Any]:
    """The named entries of `callbacks` or `logger`, built; an entry that is null is left out.

    Raises:
        BadInput: an entry names no class of this kind, or none that can be imported.
    """
    found = []
    for name, entry in cfg[group].items():
        where = f"{group}.{name}"
        if entry is None:
            continue
        if not isinstance(entry, DictConfig) or "_target_" not in entry:
            raise BadInput(f"{where}: names no class; give {where}._target_=PACKAGE.CLASS, or null")
        try:
            built = instantiate(entry, _convert_="object")
        except InstantiationException as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            raise BadInput(f"{where}: {first_line(error.__cause__)}") from error
        if not isinstance(built, kind):
            raise BadInput(f"{where}._target_={entry['_target_']}: is no {kind.__name__}")
        found.append(built)
    return found


def datamodule_of(cfg: DictConfig) -> Any:
    """The data module of a config, which has read nothing yet; `data.root` is its source's."""
    return instantiate(
        {k: v for k, v in plain(cfg.data).items() if k != "root"}, _convert_="object"
    )


def check_places(cfg: DictConfig) -> None:
    """BadInput where the run folder or that of the data cannot be written."""
    writable_folder("run", cfg.run)
    writable_folder("paths.data", cfg.paths.data)
