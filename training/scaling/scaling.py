"""Predicts a large run from small ones: python -m training.scaling LADDER.yaml [setting=value ...]

    runs/ladder/<name of the file>/
        w16-seed0/         an ordinary run folder, one per rung and seed
        prediction.json    predicted losses of the larger runs; written once, before they begin
        scaling.json       the points, the law, and the score of the prediction
        scaling.txt, scaling.png

Finished rungs are read, the others are trained one by one in this process. The same command
continues after an interruption. Settings of the command line apply to all rungs. The format of a
ladder file is in training/scaling/ladder.py.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from training.cli import bad_input_fails
from training.disk.places import writable_folder
from training.disk.plain_json import to_json
from training.disk.status import STOPPED
from training.errors import BadInput
from training.scaling.fit import PowerLaw, fit_power_law
from training.scaling.ladder import Ladder, Rung, read_ladder
from training.scaling.points import Point, Size
from training.sweeps.trials import check, check_metric, end_with_validation, last_value, train
from training.watch.rows import METRICS_FILE, read_rows

PREDICTION = "prediction.json"
COUNT = "num_parameters"  # name of the method of a network that counts its parameters


def climb(ladder: Ladder, train_missing: bool = True) -> dict[str, Any]:
    """Train or read the rungs, predict, train or read the larger runs, and score.

    Returns:
        The content of scaling.json.
    Raises:
        BadInput: a rung is unusable or missing, or a larger run began before its prediction.
    """
    for rung in (*ladder.rungs, *ladder.predict):
        ladder.compose(rung)  # every rung is judged before any is trained
    writable_folder("paths.runs", ladder.folder)
    points = _reach(ladder, ladder.rungs, train_missing)
    law = fit_power_law(np.array([p.x for p in points]), np.array([p.loss for p in points]))
    prediction = _predict(ladder, points, law)
    reached = _reach(ladder, ladder.predict, train_missing)
    from training.scaling.report import scores, write_report  # matplotlib loads here

    floors = measure(ladder, ladder.rungs[0])[1].floors
    result = scores(ladder, law, points, prediction, reached, floors)
    write_report(ladder.folder, law, result)
    return result


def _reach(ladder: Ladder, rungs: Sequence[Rung], train_missing: bool) -> list[Point]:
    """The finished runs of these rungs; unfinished ones are trained first."""
    points, missing = [], []
    for rung in rungs:
        cfg, size = measure(ladder, rung)
        point = read_point(ladder, rung, cfg, size)
        if point is None and train_missing:
            print(f"{rung.name}: {size.parameters} parameters, {size.tokens} tokens")
            train(cfg)
            point = read_point(ladder, rung, cfg, size)
            if point is None:
                print(f"{cfg.run}: stopped before its end; the same command continues")
                raise SystemExit(STOPPED)
        if point is None:
            last = f"trainer.val_check_interval={cfg.trainer.val_check_interval}"
            missing.append(f"python train.py {shlex.join([*ladder.arguments(rung), last])}")
        else:
            print(f"{rung.name}: {ladder.metric} {point.loss:.5g} ({cfg.run})")
            points.append(point)
    if missing:
        print("\n".join(missing))
        raise BadInput(f"{len(missing)} runs are not finished; train them by the commands above")
    return points


def measure(ladder: Ladder, rung: Rung) -> tuple[DictConfig, Size]:
    """Config and size of a rung, with a validation after the last step; trains nothing.

    Raises:
        BadInput: an unusable setting, or a model that does not count its parameters.
    """
    import training.run as runs  # torch and lightning load here
    from training.trainer import capped_steps

    cfg = ladder.compose(rung)
    check_metric(cfg, ladder.metric, ladder.name)
    check(cfg)  # settings are judged before any data is made
    datamodule = runs.build_data(cfg)
    count = getattr(getattr(runs.build_model(cfg, datamodule), "network", None), COUNT, None)
    if count is None:
        raise BadInput(
            f"{ladder.name}: experiment: {ladder.experiment}: has no network that counts its "
            "parameters; a ladder takes world models, such as gpt_tiny"
        )
    cfg.trainer.max_steps = steps = capped_steps(cfg, datamodule)
    end_with_validation(cfg)
    window = datamodule.dataset("train")[0][0]
    tokens = steps * runs.global_batch(cfg) * window.size
    floors: dict[str, float] = getattr(datamodule, "loss_floors", dict)()
    return cfg, Size(count(embeddings=False), tokens, floors)


def read_point(ladder: Ladder, rung: Rung, cfg: DictConfig, size: Size) -> Point | None:
    """A rung from its run folder; None if the run has not reached its last step.

    Raises:
        BadInput: the folder holds a run of other settings or of another length.
    """
    folder = Path(cfg.run)
    if not (folder / METRICS_FILE).is_file():
        return None
    checked = check(cfg)
    if (loss := last_value(cfg, ladder.metric)) is None:
        return None
    if checked.resume_from is None:
        raise BadInput(f"{folder}: holds no checkpoint that says what it is; use another folder")
    x, run = size.x(ladder.x), str(folder)
    began = min(row["time"] for row in read_rows(folder / METRICS_FILE))
    return Point(rung.name, run, x, size.parameters, size.tokens, loss, began)


def _predict(ladder: Ladder, points: list[Point], law: PowerLaw) -> dict[str, Any]:
    """Write the prediction of the larger runs, or read the one written before they began.

    Raises:
        BadInput: a larger run exists without its prediction, or the existing prediction comes
            from other runs.
    """
    file = ladder.folder / PREDICTION
    sizes = [(rung.name, *measure(ladder, rung)) for rung in ladder.predict]
    basis: dict[str, Any] = {
        "x": ladder.x,
        "metric": ladder.metric,
        "confidence": ladder.confidence,
        "points": [asdict(point) for point in points],
        "larger": [
            {"rung": name, "run": cfg.run, "x": size.x(ladder.x), **asdict(size)}
            for name, cfg, size in sizes
        ],
    }
    if file.exists():
        written: dict[str, Any] = json.loads(file.read_text())
        for key, value in basis.items():
            if written[key] != value:
                raise BadInput(
                    f"{file}: was made from other {key}; a prediction is never overwritten: copy "
                    "the ladder to another name for another one"
                )
        return written
    for _, cfg, _ in sizes:
        if (Path(cfg.run) / METRICS_FILE).exists():
            raise BadInput(
                f"{cfg.run}: has begun, and {file} does not exist; what is known cannot be "
                "predicted: make it one of the rungs and predict a larger one"
            )
    now = datetime.now(UTC)
    prediction = {
        "written": now.isoformat(timespec="seconds"),
        "time": now.timestamp(),
        **basis,
        "law": {"a": law.a, "b": law.b, "c": law.c, "noise": law.noise},
        "predictions": [_expect(law, run, ladder.confidence) for run in basis["larger"]],
    }
    _write_once(file, prediction)
    return prediction


def _expect(law: PowerLaw, run: dict[str, Any], confidence: float) -> dict[str, Any]:
    low, high = law.band(run["x"], confidence)
    loss = law.at(run["x"])
    print(f"predicted {run['rung']}: {loss:.4g} ({low:.4g} to {high:.4g})")
    return {**run, "loss": loss, "low": low, "high": high}


def _write_once(file: Path, values: dict[str, Any]) -> None:
    """Write and sync a file; FileExistsError if it exists."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x") as handle:
        handle.write(to_json(values) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.scaling",
        description="Predict a large run from small ones; the same command continues.",
    )
    parser.add_argument("ladder", type=Path, help="such as configs/ladder/known_entropy.yaml")
    parser.add_argument("overrides", nargs="*", help="settings of every rung: key=value")
    parser.add_argument(
        "--read", action="store_true", help="train nothing; print the commands of what is missing"
    )
    asked = parser.parse_args(arguments)
    with bad_input_fails():
        ladder = read_ladder(asked.ladder, asked.overrides)
        climb(ladder, train_missing=not asked.read)
        print(f"\n{(ladder.folder / 'scaling.txt').read_text()}\n{ladder.folder / 'scaling.png'}")


if __name__ == "__main__":
    main(sys.argv[1:])
