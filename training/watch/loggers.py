"""Loggers of metrics and media: a JSONL file in the run folder, and wandb."""

import os
import shlex
import shutil
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightning as L
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from training.disk.plain_json import finite, to_json
from training.disk.status import write_status
from training.errors import first_line
from training.watch.rows import append_rows

REACH_S = 3.0  # for a connection to wandb's server
ANSWER_S = 15.0  # for its answer to a new run


class FileLogger(Logger):
    """A logger into a file; ignores hyperparameters, which are in config.yaml."""

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

    Rows that cannot be written, as on a full disk, are kept until the next write.
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
    """Writes the last validation's metrics into the run folder's `status.json`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        found = {k: float(v) for k, v in metrics.items() if k.startswith("val/")}
        if found:
            write_status(self.path, metrics=finite(found))


class Wandb(WandbLogger):
    """wandb without prompts, offline where its server does not answer: it never stops a run.

    It is offline unless a key or a mode is set; WANDB_PROJECT, WANDB_ENTITY, WANDB_TAGS and
    WANDB_MODE are respected.

    Args:
        folder: the run folder; its name is the run's.
    """

    def __init__(
        self, folder: str, project: str, group: str | None = None, job_type: str | None = None
    ) -> None:
        if "WANDB_MODE" not in os.environ and not os.environ.get("WANDB_API_KEY"):
            os.environ["WANDB_MODE"] = "offline"
        os.environ.setdefault("WANDB_SILENT", "true")
        super().__init__(
            project=os.environ.get("WANDB_PROJECT", project),
            save_dir=folder,
            name=Path(folder).name,
            group=group,
            job_type=job_type,
            log_model=False,
        )

    def name_run(self, run_id: str, config: dict[str, Any]) -> None:
        """Set the run's id and config before the first row."""
        self._id = run_id
        self._wandb_init |= {"id": run_id, "config": config}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, started at the first call."""
        if self._experiment is not None:
            return self._experiment
        self._wandb_init.pop("anonymous", None)  # Lightning passes it; wandb warns of it
        self._wandb_init["settings"] = wandb.Settings(init_timeout=ANSWER_S)
        if os.environ.get("WANDB_MODE") in (None, "online", "shared"):
            problem = unreachable(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
            if problem:
                self._go_offline(problem)
        try:
            return super().experiment
        except wandb.errors.Error as error:
            if os.environ.get("WANDB_MODE") == "offline":
                raise
            self._go_offline(first_line(error))
            wandb.teardown()
            return super().experiment

    def _go_offline(self, problem: str) -> None:
        os.environ["WANDB_MODE"] = "offline"
        folder = shlex.quote(f"{self._save_dir}/wandb")
        print(
            f"warning: wandb: {problem}; the run goes on offline. Later: "
            f"wandb sync {folder}/offline-run-*",
            flush=True,
        )


def unreachable(url: str) -> str:
    """Why an address does not answer, within seconds; "" if it does."""
    proxy = urllib.request.getproxies().get(urlsplit(url).scheme)
    parts = urlsplit(proxy or url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    found: list[str] = []

    def ask() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=REACH_S).close()
            found.append("")
        except OSError as error:
            found.append(f"{parts.hostname} cannot be reached ({error.strerror or error})")

    # A name lookup has no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * REACH_S)
    return found[0] if found else f"{parts.hostname} does not answer"


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
