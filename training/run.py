"""One training run: its folder, what it resumes from, and the trainer that fills it.

runs/<name>/
    config.yaml        the resolved config
    run.json           run id, git revision, versions, hashes of data and tokenizer
    metrics.jsonl      every metric, one row per logging step
    checkpoints/       step-N folders, the newest two
    media/             reconstructions and rollouts by step
    wandb/             offline unless a key or a mode is set
"""

import json
import logging
import platform
import secrets
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import wandb
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from omegaconf import DictConfig, OmegaConf

from training.checkpoints import (
    FolderCheckpointIO,
    SaveCheckpoints,
    find_checkpoint,
    newest_first,
    read_manifest,
)
from training.cli import plain
from training.errors import BadInput
from training.exact_resume import RandomStates
from training.loggers import JsonlLogger, build_wandb
from training.throughput import Throughput

# Settings that a resumed run may change without being another run.
FREE = (
    "trainer",
    "logger",
    "checkpoints",
    "paths",
    "ckpt",
    "media",
    "hydra",
    "name",
    "run",
    "needs_gpu",
)


@dataclass
class Run:
    """A run folder; nothing is written before `describe`."""

    folder: Path
    config: dict[str, Any]
    resume_from: str | None

    def describe(self, datamodule: Any, module: Any) -> None:
        """Write config.yaml and run.json, and give the module its checkpoint manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self.config))
        facts = {
            "run_id": self.run_id(),
            "command": " ".join(sys.argv),
            "git": git_revision(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": L.__version__,
            "hardware": hardware(),
            "data_hash": datamodule.data_hash,
        }
        module.manifest |= {"config": self.config, "run": facts}
        (self.folder / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        print(f"{self.folder}: {parameters / 1e6:.1f} M trainable parameters on {hardware()}")

    def run_id(self) -> str:
        """Made once per folder, so that a resumed run stays one run in wandb."""
        file = self.folder / "run.json"
        if file.exists():
            return str(json.loads(file.read_text())["run_id"])
        return secrets.token_hex(4)

    def finish(self, trainer: L.Trainer) -> float | None:
        """Tell where everything lies; returns the last validation loss for sweeps."""
        wandb.finish()
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        shown = "  ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items()) if "val/" in k)
        print(f"\n{shown}\nrun folder: {self.folder}\nnext: python eval.py ckpt={self.folder}")
        return metrics.get("val/loss", metrics.get("val/lpips"))


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
    folder = Path(cfg.run)
    config = plain(cfg)
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
        _refuse_another_run(folder, config, read_manifest(resume)["config"])
        print(f"resuming from {resume}")
    elif newest_first(folder):
        raise BadInput(f"{folder}: holds a run already; resume it (ckpt=auto) or choose run=NAME")
    return Run(folder, config, str(resume) if resume else None)


def build_data(cfg: DictConfig) -> Any:
    """The data module, its data made, checked and ready."""
    datamodule = instantiate(cfg.loader, _convert_="object")
    datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig, datamodule: Any) -> Any:
    """The LightningModule; what the data determines is given to it, never configured."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    derived = datamodule.model_facts() if hasattr(datamodule, "model_facts") else {}
    return instantiate(cfg.model, _convert_="object", **derived)


def build_trainer(cfg: DictConfig, run: Run, datamodule: Any) -> L.Trainer:
    """A Lightning trainer with our order, checkpoints, throughput and loggers."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    loggers = [JsonlLogger(run.folder / "metrics.jsonl")]
    if cfg.logger.wandb:
        id_, stage = run.run_id(), str(cfg.stage)
        loggers.append(
            build_wandb(run.folder, cfg.logger.project, id_, cfg.logger.group, stage, run.config)  # type: ignore[arg-type]
        )
    callbacks: list[Callback] = [
        RandomStates(),
        Throughput(cfg.trainer.log_every_n_steps),
        TQDMProgressBar(refresh_rate=cfg.logger.refresh_rate),
        SaveCheckpoints(
            run.folder / "checkpoints", cfg.checkpoints.every_steps, cfg.checkpoints.keep
        ),
    ]
    if cfg.media.get("_target_"):
        callbacks.append(instantiate(cfg.media, _convert_="object"))
    settings = plain(cfg.trainer)
    settings["max_steps"] = capped_steps(cfg, datamodule)
    if settings["precision"] == "auto":
        settings["precision"] = "bf16-mixed" if computes_in_bf16() else "32-true"
    return L.Trainer(
        **settings,
        default_root_dir=run.folder,
        logger=loggers,
        callbacks=callbacks,
        plugins=[FolderCheckpointIO()],
        use_distributed_sampler=False,
        max_epochs=-1,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
    )


def experiments() -> list[str]:
    from training.cli import CONFIGS

    return sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml"))


def git_revision() -> str:
    """Commit of the code, with '+dirty' where the tree differs; '' outside a checkout."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        sha = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        diff = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha.stdout.strip() + ("+dirty" if diff.stdout.strip() else "")


def capped_steps(cfg: DictConfig, datamodule: Any) -> int:
    """`trainer.max_steps`, or fewer where the data would be seen more than `max_passes` times."""
    steps = int(cfg.trainer.max_steps)
    if not cfg.max_passes:
        return steps
    devices = max(1, torch.cuda.device_count()) if cfg.trainer.devices == "auto" else 1
    batch = datamodule.batch_size * cfg.trainer.accumulate_grad_batches * devices
    limit = max(1, int(cfg.max_passes * len(datamodule.dataset("train")) / batch))
    if limit < steps:
        print(
            f"note: {limit} steps instead of {steps}, so that the model does not memorise: the "
            f"data is seen at most {cfg.max_passes:g} times (max_passes)"
        )
    return min(steps, limit)


def computes_in_bf16() -> bool:
    """Whether bf16 is faster than fp32 here; CPUs without it emulate it slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"


def _refuse_another_run(folder: Path, config: dict[str, Any], saved: dict[str, Any]) -> None:
    """BadInput where the folder's run was made with other settings than asked for now."""
    now, then = _flat(config), _flat(saved)
    keys = sorted(k for k in now.keys() | then.keys() if k.split(".")[0] not in FREE)
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
        else:
            flat[f"{prefix}{key}"] = value
    return flat
