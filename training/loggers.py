"""Where metrics and media go: a JSONL file in the run folder, and wandb."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from training.plain_json import finite, to_json
from training.rows import append_rows
from training.status import write_status


class FileLogger(Logger):
    """A logger without a server, and without hyperparameters: config.yaml has them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""


class JsonlLogger(FileLogger):
    """One JSON object per logging step in `metrics.jsonl`; a resumed run appends.

    Rows that cannot be written, as on a full disk, wait for the next one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: list[str] = []

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, "time": round(time.time(), 3), **metrics}
        self._waiting.append(to_json(row, indent=None) + "\n")
        try:
            append_rows(self.path, self._waiting)
        except OSError as error:
            if len(self._waiting) == 1:
                print(f"warning: {self.path}: not written ({error.strerror}); its rows wait")
        else:
            self._waiting.clear()


class StatusLogger(FileLogger):
    """Keeps the last validation's metrics in the `status.json` of a run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        found = {k: float(v) for k, v in metrics.items() if k.startswith("val/")}
        if found:
            write_status(self.path, metrics=finite(found))


def build_wandb(
    folder: Path, project: str, run_id: str, group: str, job_type: str, config: dict[str, Any]
) -> WandbLogger:
    """A wandb logger that never asks: offline unless a key or a mode is set.

    WANDB_PROJECT, WANDB_ENTITY, WANDB_TAGS and WANDB_MODE are respected.
    """
    if "WANDB_MODE" not in os.environ and not os.environ.get("WANDB_API_KEY"):
        os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", project),
        save_dir=folder,
        id=run_id,
        name=folder.name,
        group=group,
        job_type=job_type,
        config=config,
        log_model=False,
    )
    return logger


@rank_zero_only
def log_media(trainer: L.Trainer, name: str, files: list[Path]) -> None:
    """Keep pictures and videos under media/step-N and send them to wandb.

    Args:
        name: key such as "rollout/clips"; its last part names the copies.
        files: .png, .gif or .mp4 files; they are moved into the run folder.
    """
    folder = Path(trainer.default_root_dir) / "media" / f"step-{trainer.global_step:07d}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        kept = Path(shutil.move(file, folder / file.name))
        for logger in trainer.loggers:
            if not isinstance(logger, WandbLogger):
                continue
            if kept.suffix == ".png":
                logger.log_image(name, [str(kept)], step=trainer.global_step)
            else:
                logger.log_video(name, [str(kept)], step=trainer.global_step)
