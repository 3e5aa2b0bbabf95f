"""A table of runs: python -m training.sweeps RUNS [--sort METRIC] [--csv FILE]

One row per run folder: state, step, settings that differ, last validation metrics, why it failed.
"""

import argparse
import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from training.cli import bad_input_fails
from training.disk.plain_json import number
from training.disk.status import FILE, read_status
from training.errors import BadInput
from training.pages.text_table import text_table

LOST_AFTER_MIN = 15.0  # a run that says "running" reports at least at every validation
FIXED = ("run", "state", "step", "attempts", "reason")
NOT_SETTINGS = ("run", "paths", "ckpt", "logger")  # where it lies says nothing about what it is
# The columns of `FIXED`, settings by their dotted names, metrics by names with a slash.
Row = dict[str, Any]


def find_rows(runs: Path, lost_after_min: float = LOST_AFTER_MIN) -> list[Row]:
    """The runs below `runs`, by name; BadInput where there are none."""
    if not runs.is_dir():
        raise BadInput(f"{runs}: no such folder; give one with run folders in it, such as runs")
    if not (folders := sorted(file.parent for file in runs.rglob(FILE))):
        raise BadInput(f"{runs}: holds no run (no {FILE} below it)")
    names = (f.relative_to(runs).as_posix() if f != runs else f.resolve().name for f in folders)
    return [{"run": n, **_row(f, 60 * lost_after_min)} for n, f in zip(names, folders, strict=True)]


def _row(folder: Path, lost_after_s: float) -> Row:
    file = "config.yaml"
    try:
        config = yaml.safe_load((folder / file).read_bytes()) if (folder / file).is_file() else {}
        row = _flat({k: v for k, v in (config or {}).items() if k not in NOT_SETTINGS})
        file, status = FILE, read_status(folder)
        lost = status["state"] == "running" and time.time() - status["updated"] > lost_after_s
        row |= {name: number(value) for name, value in (status.get("metrics") or {}).items()}
        row |= {"state": "lost?" if lost else status["state"], "attempts": status.get("attempts")}
        if (step := status.get("step")) is not None:
            row["step"] = f"{step}/{status.get('max_steps') or '?'}"
        return {**row, "reason": " ".join(str(status.get("reason") or "").split())}
    except (BadInput, OSError, ValueError, AttributeError, KeyError, TypeError, yaml.YAMLError):
        return {"state": "unreadable", "reason": f"{file}: damaged; start the run again"}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {k: v for key, n in node.items() for k, v in _flat(n, f"{prefix}{key}.").items()}


def metrics_of(rows: Sequence[Row]) -> list[str]:
    return sorted({name for row in rows for name in row if "/" in name})


def differing_settings(rows: Sequence[Row]) -> list[str]:
    """Settings that differ between runs; of `seed` and `loader.seed`, which repeats it, `seed`."""
    names = sorted({name for row in rows for name in row} - {*FIXED, *metrics_of(rows)})
    configs = [row for row in rows if any(name in row for name in names)]
    values = {name: [repr(row.get(name)) for row in configs] for name in names}
    differing = {name: v for name, v in values.items() if len(set(v)) > 1}
    repeated = {
        n for n in differing for k in names if n.endswith(f".{k}") and values[n] == values[k]
    }
    return [name for name in differing if name not in repeated]


def sort_rows(rows: Sequence[Row], metric: str, descending: bool = False) -> list[Row]:
    """By a metric, the smallest first; runs without it, or with NaN, last."""
    if metric not in (known := metrics_of(rows)):
        there = ", ".join(known) or "none of the runs has validated yet"
        raise BadInput(f"--sort {metric}: no run has this metric; there are: {there}")
    sign, value = -1 if descending else 1, lambda row: row.get(metric, math.nan)
    return sorted(rows, key=lambda row: (math.isnan(value(row)), sign * value(row)))


def write_csv(file: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    try:
        with file.open("w", newline="") as handle:
            csv.writer(handle).writerows([columns, *([r.get(c) for c in columns] for r in rows)])
    except OSError as error:
        raise BadInput(f"--csv {file}: cannot be written ({error.strerror})") from error


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m training.sweeps", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder with run folders in it, at any depth")
    parser.add_argument("--sort", metavar="METRIC", help="such as val/loss; the smallest first")
    parser.add_argument("--descending", action="store_true", help="the largest first")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write everything there too")
    parser.add_argument("--max-settings", type=int, default=8, help="differing settings shown (8)")
    lost = f"minutes until a silent running run is lost? ({LOST_AFTER_MIN:g})"
    parser.add_argument("--lost-after", type=float, default=LOST_AFTER_MIN, help=lost)
    asked = parser.parse_args(arguments)
    with bad_input_fails():
        rows = find_rows(asked.runs, asked.lost_after)
        if asked.sort:
            rows = sort_rows(rows, asked.sort, asked.descending)
        settings, metrics = differing_settings(rows), metrics_of(rows)
        shown = [*FIXED[:-1], *settings[: asked.max_settings], *metrics, "reason"]
        print(text_table(shown, [[row.get(column) for column in shown] for row in rows]))
        if len(settings) > asked.max_settings:
            print(f"{len(settings) - asked.max_settings} more settings differ; see --csv")
        if asked.csv:
            write_csv(asked.csv, [*FIXED[:-1], *settings, *metrics, "reason"], rows)
