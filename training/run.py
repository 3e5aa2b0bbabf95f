"""One training run: its folder, its resumption, and its end.

runs/<name>/
    config.yaml        the resolved config
    run.json           run id, git revision, versions, hashes of data and tokenizer
    data.json          a digest of every drive
    status.json        running, finished, stopped or failed, and why
    metrics.jsonl      every metric, one row per logging step
    .lock              the training process; locked while it lives
    checkpoints/       step-N folders, the newest two
    media/             reconstructions and rollouts by step
    faults/            batches whose loss or gradient was not finite
    wandb/             offline unless a key or a mode is set
"""

import os
import platform
import secrets
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
import wandb
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from training.checkpoints.folder import find_checkpoint, newest_first
from training.checkpoints.manifests import read_resumable
from training.checkpoints.provenance import provenance_of
from training.checkpoints.resume import (
    as_recorded,
    decide_precision,
    judge_batch,
    judge_changes,
    keep_actions,
)
from training.checkpoints.same_data import data_facts, judge_data, write_digests
from training.checkpoints.starting import with_origin
from training.cli import is_sweep, plain, run_folder
from training.command_line import typed
from training.disk.folders import lock_folder, refuse_held
from training.disk.leftovers import sweep_leftovers
from training.disk.places import made_folder
from training.disk.records import read_record, write_durably, write_record
from training.disk.status import STOPPED, slurm_job, write_status
from training.errors import BadInput
from training.help import CONFIGS
from training.loading.rates import compare_rates
from training.machine import (
    hardware,
    launched_rank,
    launched_together,
    num_devices,
)
from training.settings import check_places, check_settings, datamodule_of
from training.stopping import Stopped, leave, watch
from training.sweeps.snapshot import content_hash, git_revision
from training.trainer import build_trainer, capped_steps
from training.watch.rows import FINDINGS_FILE, METRICS_FILE, cut_rows
from training.watch.validation import DueValidation

__all__ = ["Run", "build_data", "build_model", "build_trainer", "capped_steps", "open_run"]

RECORD, TRAINS = "run.json", "trains"


@dataclass
class Run:
    """A run folder; nothing is written before `describe`.

    Attributes:
        resumed: manifest of the checkpoint that the run resumes from; empty for a new run.
        id: id of the run, made once per folder, so that a resumed run stays one run in wandb.
        newest: newest checkpoint of the folder at the time of opening, whole or not.
        origin: provenance of the weights that it began with; None: random ones.
    """

    folder: Path
    config: dict[str, Any]
    resume_from: str | None
    id: str
    global_batch: int
    resumed: dict[str, Any] = field(default_factory=dict)
    newest: Path | None = None
    origin: dict[str, Any] | None = None
    _lock: FileLock | None = None

    def begin(self, module: Any) -> None:
        """Give a new run the weights of `init_from`; a resumed run has its own.

        Raises:
            BadInput: as `begin_from` and `begin_anew` of a `TrainedModule`.
        """
        path = self.config["init_from"]
        if self.resumed:
            self.origin = self.resumed.get("run", {}).get("init_from")
            module.go_on(self.resumed)
        elif path is not None:
            self.origin = provenance_of(module.begin_from(path))
        else:
            module.begin_anew()

    def describe(self, datamodule: Any, module: Any) -> None:
        """Lock the folder, write config.yaml and run.json, give the module its manifest.

        Raises:
            BadInput: the data differs from that of the run's start, the folder cannot be written,
                or another process trains in it.
        """
        facts = {
            "run_id": self.id,
            "command": shlex.join(sys.argv),
            "git": git_revision(),
            "code": content_hash(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": L.__version__,
            "hardware": hardware(),
            "global_batch": self.global_batch,
            **with_origin(data_facts(datamodule), self.origin),
        }
        if self.resumed:
            before, other = self.resumed.get("run", {}), self.config["other_data"]
            judge_data(self.folder, before, datamodule, other)
        module.manifest |= {"config": self.config, "run": facts}
        if launched_rank():
            return
        self._take()
        try:
            write_durably(self.folder / "config.yaml", OmegaConf.to_yaml(self.config).encode())
            write_record(self.folder / RECORD, facts)
            write_digests(self.folder, datamodule)
        except OSError as error:
            raise BadInput(f"run={self.folder}: cannot be written ({error.strerror})") from error
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        print(f"{self.folder}: {parameters / 1e6:.1f} M trainable parameters on {hardware()}")

    def _take(self) -> None:
        """Lock the folder; BadInput if it changed since the run was opened."""
        self._lock = lock_folder(made_folder("run", self.folder), TRAINS)
        if _newest(self.folder) != self.newest:
            self._lock.release()
            raise BadInput(f"{self.folder}: another process has trained there; start again")
        sweep_leftovers(self.folder)

    def fit(self, trainer: L.Trainer, module: Any, datamodule: Any) -> None:
        """Train; status.json records every kind of end.

        Raises:
            SystemExit: a signal asked to stop and everything is saved; code 75.
        """
        self._say(trainer, state="running", reason="", exit_code=None, job=slurm_job())
        if not launched_rank():
            for name in (METRICS_FILE, FINDINGS_FILE):
                cut_rows(self.folder / name, int(self.resumed.get("step", 0)))
        try:
            trainer.fit(module, datamodule, ckpt_path=self.resume_from, weights_only=True)
            DueValidation(self.folder).make_up_at_end(trainer, module)
        except Stopped as stop:
            step = {} if stop.step is None else {"step": stop.step}
            self._say(trainer, state="stopped", reason=str(stop), exit_code=STOPPED, **step)
            wandb.finish(exit_code=STOPPED)
            leave(stop)
        except BaseException as error:
            code = 2 if isinstance(error, BadInput) else 1
            reason = f"{type(error).__name__}: {error}"
            self._say(trainer, state="failed", reason=reason, exit_code=code)
            raise
        else:
            self._say(trainer, state="finished", exit_code=0, step=trainer.global_step)
            watch.at_once = False  # the rest is short
        finally:
            if self._lock is not None:
                self._lock.release()

    def finish(self, trainer: L.Trainer) -> float | None:
        """Print the results and their folder; returns the last validation loss for sweeps."""
        wandb.finish()
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if trainer.is_global_zero:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items()) if "val/" in k)
            print(f"\n{shown}\nrun folder: {self.folder}")
            judged_by = trainer.lightning_module.judged_by
            print(f"next: python {judged_by} {typed('ckpt', str(self.folder))}")
        return metrics.get("val/loss", metrics.get("val/lpips"))

    def _say(self, trainer: L.Trainer, **changes: Any) -> None:
        if trainer.is_global_zero:
            write_status(self.folder, max_steps=trainer.max_steps, **changes)


def open_run(cfg: DictConfig, to_train: bool = True) -> Run:
    """Check the config and find the checkpoint to resume from; writes nothing.

    The precision of the run is decided here and stored in `cfg`, like a resumed run's actions.

    Args:
        to_train: False: only read a run; another process may be training it.
    Raises:
        BadInput: no experiment named, a setting out of range, a folder that cannot be written
            into or is in use, another run in the folder, or a bad checkpoint.
    """
    if cfg.get("name") is None:
        raise BadInput(
            "name an experiment: python train.py +experiment=gpt_tiny (recipes: "
            f"{', '.join(experiments())})"
        )
    if to_train and not launched_rank():
        check_places(cfg)
    cfg.run = str(run_folder(cfg))
    folder = Path(cfg.run)
    _check_processes(cfg)
    if to_train and not launched_rank():
        refuse_held(folder, TRAINS)
    newest, begins = _newest(folder), cfg.init_from
    if newest is None and begins and os.sep in begins and not Path(begins).exists():
        raise BadInput(f"init_from={begins}: no such run or checkpoint")
    check_settings(cfg)
    if cfg.ckpt == "auto":
        resume = find_checkpoint(folder, resume=True) if newest else None
    else:
        resume = find_checkpoint(Path(cfg.ckpt), resume=True) if cfg.ckpt else None
    if cfg.needs_gpu and not torch.cuda.is_available():
        print(
            f"warning: {cfg.name} is meant for GPUs and there is none here: on this CPU it takes "
            "days to weeks. To see results today: +experiment=gpt_tiny. Going on all the same."
        )
    manifest = read_resumable(resume) if resume is not None else {}
    decide_precision(cfg, manifest.get("config"))
    config, batch = as_recorded(plain(cfg), manifest), global_batch(cfg)
    if resume is not None:
        judge_batch(folder, manifest, batch)
        print(
            "\n".join(
                [f"resuming from {resume}", *judge_changes(folder, manifest["config"], config)]
            )
        )
        if to_train:
            keep_actions(cfg, manifest)  # the recorded config stays as it was given
    elif newest is not None:
        raise BadInput(f"{folder}: holds a run already; resume it (ckpt=auto) or choose run=NAME")
    start, id_ = str(resume) if resume else None, _run_id(folder, manifest)
    return Run(folder, config, start, id_, batch, manifest, newest)


def _newest(folder: Path) -> Path | None:
    return next(iter(newest_first(folder)), None)


def _run_id(folder: Path, manifest: dict[str, Any]) -> str:
    """The id of the folder's run, from run.json, or from the checkpoint if that is damaged."""
    file = folder / RECORD
    known = manifest.get("run", {}).get("run_id")
    if file.exists():
        try:
            return str(read_record(file, may_lack_seal=_is_unsealed)["run_id"])
        except BadInput as error:
            print(f"warning: {error}; written anew" + (" from its checkpoint" if known else ""))
    return str(known or secrets.token_hex(4))


def _is_unsealed(values: dict[str, Any]) -> bool:
    """Whether run.json is from a release without seals."""
    return "run_id" in values and "config_hash" in values


def build_data(cfg: DictConfig) -> Any:
    """The data module with its data made and checked; processes prepare it one by one."""
    datamodule = datamodule_of(cfg)
    if launched_together():
        Path(cfg.paths.data).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(cfg.paths.data) / ".making.lock"):
            datamodule.prepare_data()
    else:
        datamodule.prepare_data()
    if cfg.get("fps") and datamodule.fps and not launched_rank():
        every = "data.encode.every" if "encode" in cfg.data else ""
        compare_rates(cfg.fps, datamodule.fps, f"recipe {cfg.name}", "the data", every)
    return datamodule


def build_model(cfg: DictConfig, datamodule: Any) -> Any:
    """The LightningModule; facts about the data come from the data module, not the config."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    derived = datamodule.model_facts() if hasattr(datamodule, "model_facts") else {}
    # These facts bypass Hydra, which would turn tuples into lists.
    module = instantiate(cfg.model, _convert_="object", _partial_=True)(**derived)
    module.accumulate = cfg.trainer.accumulate_grad_batches
    module.speed_up(compile=cfg.compile, recompute=cfg.checkpoint_activations)
    return module


def experiments() -> list[str]:
    return sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml"))


def _check_processes(cfg: DictConfig) -> None:
    """BadInput if Lightning itself would start processes inside a sweep."""
    alone = slurm_job() is None and "RANK" not in os.environ
    if is_sweep() and alone and num_devices(cfg.trainer) > 1:
        raise BadInput(
            f"trainer.devices={cfg.trainer.devices} in a sweep (-m): every process would start the "
            "whole sweep again; use hydra/launcher=slurm, torchrun, or trainer.devices=1"
        )


def global_batch(cfg: DictConfig) -> int:
    """Samples of one optimizer step: batch size x accumulation x processes."""
    each = int(cfg.data.batch_size) * int(cfg.trainer.accumulate_grad_batches)
    return each * num_devices(cfg.trainer)
