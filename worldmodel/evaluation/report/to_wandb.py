"""Cards in wandb: the same tables and panels for every run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from training.watch.loggers import Wandb
from worldmodel.evaluation.report.terminal import table_rows

PROJECT = "dashcast"


def send(found: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path, out: Path) -> None:
    """Add an evaluation to the run that trained the checkpoint: scores, tables, pictures, videos.

    Args:
        found: the content of `metrics.json`.
        manifest: of the checkpoint; a published one gets a run of its own.
        folder: the run folder, which holds wandb's files.
        out: folder of the evaluation's pictures and videos.
    """
    logger = Wandb(str(folder), PROJECT, job_type="evaluation")
    run_id = manifest.get("run", {}).get("run_id")
    if run_id:
        logger.name_run(run_id, manifest.get("config") or {})
    run = logger.experiment
    row: dict[str, Any] = {}
    for name, card in found["cards"].items():
        for system, scores in card.get("scores", {}).items():
            for score, estimate in scores.items():
                run.summary[f"eval/{name}/{system}/{score}"] = estimate["value"]
        for score, value in card.get("means", {}).items():
            run.summary[f"eval/{name}/{score}"] = value
        if "scores" in card:
            columns, rows = table_rows(card)
            row[f"eval/{name}"] = wandb.Table(["system", *columns[1:]], rows)
    for file in sorted(out.iterdir()):
        if file.suffix == ".mp4":
            row[f"eval/{file.stem}"] = wandb.Video(str(file), format="mp4")
        elif file.suffix == ".png":
            row[f"eval/{file.stem}_strip"] = wandb.Image(str(file))
    run.log(row)
    run.finish()
