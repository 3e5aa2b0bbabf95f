"""One training run: its folder, what it resumes from, and how it ends.

runs/<name>/
    config.yaml        the resolved config
    run.json           run id, git revision, versions, hashes of data and tokenizer
    status.json        running, finished, stopped or failed, and why
    metrics.jsonl      every metric, one row per logging step
    checkpoints/       step-N folders, the newest two
    media/             reconstructions and rollouts by step
    faults/            batches whose loss or gradient was not finite
    wandb/             offline unless a key or a mode is set
"""

import hashlib
import json
import os
import platform
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import wandb
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from training.checkpoints import find_checkpoint, newest_first, read_manifest
from training.cli import CONFIGS, is_sweep, plain, run_folder
from training.errors import BadInput
from training.machine import (
    hardware,
    is_helper_of_rank_zero,
    launched_rank,
    launched_together,
    num_devices,
)
from training.signals import Stopped, requeue_job
from training.snapshot import git_revision
from training.status import STOPPED, slurm_job, write_status
from training.trainer import build_trainer, capped_steps

__all__ = ["Run", "build_data", "build_model", "build_trainer", "capped_steps", "open_run"]

# Settings that a resumed run may change without being another run.
FREE = (
    "trainer",
    "logger",
    "checkpoints",
    "paths",
    "ckpt",
    "media",
    "doctor",
    "hydra",
    "name",
    "run",
    "needs_gpu",
    "compile",
    "checkpoint_activations",
    "max_skipped_steps",
    "requeue",
    "plan",
    "plan_device",
    "plan_mfu",
    "data.cache",
    "loader.source.cache",
    "loader.num_workers",
    "loader.on_corrupt",
    "loader.frames",
    "loader.batch_size",  # of one process; the global batch has to stay
)


@dataclass
class Run:
    """A run folder; nothing is written before `describe`.

    Attributes:
        id: made once per folder, so that a resumed run stays one run in wandb.
    """

    folder: Path
    config: dict[str, Any]
    resume_from: str | None
    id: str
    global_batch: int

    def describe(self, datamodule: Any, module: Any) -> None:
        """Write config.yaml and run.json, and give the module its checkpoint manifest."""
        facts = {
            "run_id": self.id,
            "command": " ".join(sys.argv),
            "git": git_revision(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": L.__version__,
            "hardware": hardware(),
            "config_hash": config_hash(self.config),
            "global_batch": self.global_batch,
            "data_hash": datamodule.data_hash,
        }
        module.manifest |= {"config": self.config, "run": facts}
        if launched_rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self.config))
        (self.folder / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        print(f"{self.folder}: {parameters / 1e6:.1f} M trainable parameters on {hardware()}")

    def fit(self, trainer: L.Trainer, module: Any, datamodule: Any) -> None:
        """Train; however it ends, status.json says so.

        Raises:
            SystemExit: with code 75, where a signal asked to stop and everything is saved.
        """
        self._say(trainer, state="running", reason="", exit_code=None, job=slurm_job())
        try:
            trainer.fit(module, datamodule, ckpt_path=self.resume_from, weights_only=True)
        except Stopped as stop:
            self._say(trainer, state="stopped", reason=str(stop), exit_code=STOPPED, step=stop.step)
            self._leave(stop)
        except BaseException as error:
            code = 2 if isinstance(error, BadInput) else 1
            reason = f"{type(error).__name__}: {error}"
            self._say(trainer, state="failed", reason=reason, exit_code=code)
            raise
        self._say(trainer, state="finished", exit_code=0, step=trainer.global_step)

    def finish(self, trainer: L.Trainer) -> float | None:
        """Tell where everything lies; returns the last validation loss for sweeps."""
        wandb.finish()
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if trainer.is_global_zero:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items()) if "val/" in k)
            print(f"\n{shown}\nrun folder: {self.folder}")
            print(f"next: python eval.py ckpt={self.folder}")
        return metrics.get("val/loss", metrics.get("val/lpips"))

    def _say(self, trainer: L.Trainer, **changes: Any) -> None:
        if trainer.is_global_zero:
            write_status(self.folder, max_steps=trainer.max_steps, **changes)

    def _leave(self, stop: Stopped) -> None:
        """Exit with the code that means "start me again", and see to it where Slurm can."""
        wandb.finish(exit_code=STOPPED)
        if launched_rank() == 0:
            print(f"\n{stop}", flush=True)
            problem = requeue_job() if stop.requeue else ""
            if problem:
                print(f"warning: {problem}", flush=True)
        raise SystemExit(0 if is_helper_of_rank_zero() else STOPPED)


def open_run(cfg: DictConfig) -> Run:
    """Check the config and find what to resume; writes nothing.

    Raises:
        BadInput: no experiment named, a setting out of range, another run in the folder, or a
            bad checkpoint.
    """
    if cfg.get("name") is None:
        raise BadInput(
            "name an experiment: python train.py +experiment=gpt_tiny (recipes: "
            f"{', '.join(experiments())})"
        )
    cfg.run = str(run_folder(cfg))
    folder = Path(cfg.run)
    config = plain(cfg)
    _check_processes(cfg)
    for part in cfg.model.values():  # settings are judged before any data is made
        if isinstance(part, DictConfig) and "_target_" in part:
            instantiate(part, _convert_="object")
    if cfg.ckpt == "auto":
        resume = find_checkpoint(folder) if newest_first(folder) else None
    else:
        resume = find_checkpoint(Path(cfg.ckpt)) if cfg.ckpt else None
    if cfg.needs_gpu and not torch.cuda.is_available():
        print(
            f"warning: {cfg.name} is meant for GPUs and there is none here: on this CPU it takes "
            "days to weeks. To see results today: +experiment=gpt_tiny. Going on all the same."
        )
    if resume is not None:
        _refuse_another_run(folder, config, read_manifest(resume), global_batch(cfg))
        print(f"resuming from {resume}")
    elif newest_first(folder):
        raise BadInput(f"{folder}: holds a run already; resume it (ckpt=auto) or choose run=NAME")
    file = folder / "run.json"
    id_ = json.loads(file.read_text())["run_id"] if file.exists() else secrets.token_hex(4)
    return Run(folder, config, str(resume) if resume else None, str(id_), global_batch(cfg))


def build_data(cfg: DictConfig) -> Any:
    """The data module, its data made, checked and ready; processes do it one after the other."""
    datamodule = instantiate(cfg.loader, _convert_="object")
    if not launched_together():
        datamodule.prepare_data()
        return datamodule
    Path(cfg.paths.data).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(cfg.paths.data) / ".making.lock"):
        datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig, datamodule: Any) -> Any:
    """The LightningModule; what the data determines is given to it, never configured."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    derived = datamodule.model_facts() if hasattr(datamodule, "model_facts") else {}
    # What the data says goes past Hydra, which would make lists of its tuples.
    module = instantiate(cfg.model, _convert_="object", _partial_=True)(**derived)
    module.accumulate = cfg.trainer.accumulate_grad_batches
    module.speed_up(compile=cfg.compile, recompute=cfg.checkpoint_activations)
    return module


def experiments() -> list[str]:
    return sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml"))


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of the settings that make a run what it is: all but the free ones."""
    kept = {key: value for key, value in config.items() if key not in FREE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _check_processes(cfg: DictConfig) -> None:
    """BadInput where Lightning would start processes itself, inside a sweep."""
    alone = slurm_job() is None and "RANK" not in os.environ
    if is_sweep() and alone and num_devices(cfg.trainer) > 1:
        raise BadInput(
            f"trainer.devices={cfg.trainer.devices} in a sweep (-m): every process would start the "
            "whole sweep again; use hydra/launcher=slurm, torchrun, or trainer.devices=1"
        )


def global_batch(cfg: DictConfig) -> int:
    """Samples of one optimizer step: batch size x accumulation x processes."""
    each = int(cfg.loader.batch_size) * int(cfg.trainer.accumulate_grad_batches)
    return each * num_devices(cfg.trainer)


def _refuse_another_run(
    folder: Path, config: dict[str, Any], manifest: dict[str, Any], batch: int
) -> None:
    """BadInput where the folder's run was made with other settings than asked for now."""
    before = manifest.get("run", {}).get("global_batch", batch)
    if before != batch:
        raise BadInput(
            f"{folder}: its run takes {before} samples per step, now {batch} would be (batch size "
            "x accumulation x devices); change them so that the product stays"
        )
    now, then = _flat(config), _flat(manifest["config"])
    # Settings that the release which wrote it did not know are as it behaved.
    keys = sorted(k for k in now.keys() & then.keys() if not {k, k.split(".")[0]} & {*FREE})
    for key in keys:
        if now.get(key) != then.get(key):
            raise BadInput(
                f"{folder}: its run has {key}={then.get(key)}, now {now.get(key)} is asked for; "
                "choose another folder (run=runs/NAME) or the same settings"
            )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:  # a class may move to another module; its name stays
            flat[f"{prefix}{key}"] = value.split(".")[-1] if key == "_target_" else value
    return flat
