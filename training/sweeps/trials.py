"""Composes, trains and reads runs in this process, for a search, a ladder or a tokenizer sweep."""

import contextlib
import copy
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from training.cli import judge
from training.command_line import near
from training.disk.status import read_status
from training.errors import BadInput
from training.help import composed, explain
from training.watch.rows import METRICS_FILE, last_values, read_rows


def compose_train(arguments: Sequence[str], where: str) -> DictConfig:
    """The config that train.py composes from these arguments, judged as train.py judges it.

    Args:
        where: name of the run in messages.

    Raises:
        BadInput: a setting that does not exist or is out of its range.
    """
    try:
        return copy.deepcopy(_compose(tuple(arguments)))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


@lru_cache(maxsize=256)
def _compose(arguments: tuple[str, ...]) -> DictConfig:
    try:
        cfg = composed("train", arguments)
        judge(cfg, "train")
    except MissingMandatoryValue as error:
        raise BadInput(f"{error.full_key}: has no default; give {error.full_key}=...") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(explain(error, "train")) from error
    return cfg


def check_metric(cfg: DictConfig, metric: str, file: str | Path) -> None:
    """BadInput, before anything is made, where a validation logs no such metric."""
    target = cfg.get("model", {}).get("_target_")
    logged = getattr(get_class(target), "validated", ()) if target else ()
    if logged and metric not in logged:
        raise BadInput(f"{file}: metric: {metric}: is not logged; {near(metric, list(logged))}")


def check(cfg: DictConfig) -> Any:
    """The checks of train.py, without its message about a finished run."""
    import training.run as runs  # torch and lightning load here

    with contextlib.redirect_stdout(io.StringIO()):
        return runs.open_run(cfg, to_train=False)


def train(cfg: DictConfig, callbacks: Sequence[Any] = ()) -> None:
    """Train or resume one run folder, as train.py does.

    Raises:
        BadInput: an unusable setting, or more than one process.
    """
    import wandb

    import training.run as runs

    run = runs.open_run(cfg)
    datamodule = runs.build_data(cfg)
    module = runs.build_model(cfg, datamodule)
    trainer = runs.build_trainer(cfg, run, datamodule, module)
    refuse_several_processes(trainer)
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    run.describe(datamodule, module)
    try:
        run.fit(trainer, module, datamodule)
    except BaseException:
        wandb.finish(exit_code=1)  # the next training is another run
        raise
    run.finish(trainer)


def refuse_several_processes(trainer: Any) -> None:
    """BadInput if the trainer starts several processes: each would train all runs."""
    if trainer.world_size > 1:
        raise BadInput(
            f"trainer.devices={trainer.world_size}: runs of a search, a ladder or a sweep are "
            "trained in one process; give trainer.devices=1, or train each by train.py"
        )


def end_with_validation(cfg: DictConfig) -> None:
    """Make a run validate after its last step, by one interval over the whole run if needed."""
    batches = int(cfg.trainer.max_steps) * int(cfg.trainer.accumulate_grad_batches)
    if batches % int(cfg.trainer.val_check_interval):
        cfg.trainer.val_check_interval = batches


def last_value(cfg: DictConfig, metric: str) -> float | None:
    """A metric after the last step of a run; None if the run has not reached it.

    Raises:
        BadInput: the folder holds a run of another length.
    """
    folder, steps = Path(cfg.run), int(cfg.trainer.max_steps)
    trained_for = read_status(folder).get("max_steps")
    if trained_for not in (None, steps):
        raise BadInput(
            f"{folder}: is a run of {trained_for} steps, the file asks for {steps}; "
            "give it this length, or another name"
        )
    values = last_values(read_rows(folder / METRICS_FILE), metric)
    # Lightning may log the validation after the last step under the step before.
    last = max(values, default=0)
    return values[last] if values and last >= steps - 1 else None
