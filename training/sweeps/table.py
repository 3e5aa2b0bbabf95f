"""A table of runs: python -m training.sweeps RUNS [--sort METRIC] [--csv FILE]

One row per run folder below RUNS that has a status.json: its state, how far it came, the
settings in which the runs differ, the last validation metrics, and why it failed.
"""

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.cli import fail
from training.disk.plain_json import number
from training.disk.status import FILE, read_status
from training.errors import BadInput

# A run that says "running" reports at least at every validation.
LOST_AFTER_MIN = 15.0
# Where a run lies says nothing about what it is.
NOT_SETTINGS = ("run", "paths", "ckpt", "logger")
FIXED = ("run", "state", "step", "attempts")
REASON_WIDTH = 60


@dataclass
class Row:
    """One run folder, as the table shows it."""

    run: str
    state: str
    step: int | None = None
    max_steps: int | None = None
    attempts: int | None = None
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def find_rows(runs: Path, lost_after_min: float = LOST_AFTER_MIN) -> list[Row]:
    """The runs below `runs`, by name.

    Raises:
        BadInput: no such folder, or no run in it.
    """
    if not runs.is_dir():
        raise BadInput(f"{runs}: no such folder; give one with run folders in it, such as runs")
    folders = sorted(file.parent for file in runs.rglob(FILE))
    if not folders:
        raise BadInput(f"{runs}: holds no run (no {FILE} below it)")
    now = time.time()
    return [_row(runs, folder, now, lost_after_min * 60) for folder in folders]


def differing_settings(rows: Sequence[Row]) -> list[str]:
    """Settings that are not the same in all runs with a config.

    A config repeats what is referred to, `seed` as `loader.seed`: the shorter name stands for both.
    """
    configs = [row.config for row in rows if row.config]
    values: dict[str, list[str]] = {
        key: [json.dumps(config.get(key), default=str) for config in configs]
        for key in sorted({key for config in configs for key in config})
    }
    differing = [key for key in values if len(set(values[key])) > 1]

    def repeats(key: str) -> bool:
        return any(key.endswith(f".{k}") and values[k] == values[key] for k in differing)

    return [key for key in differing if not repeats(key)]


def sort_rows(rows: Sequence[Row], metric: str, descending: bool = False) -> list[Row]:
    """By a metric, the smallest first; runs without it, or with NaN, last.

    Raises:
        BadInput: no run has this metric.
    """
    known = sorted({name for row in rows for name in row.metrics})
    if metric not in known:
        there = ", ".join(known) if known else "none of the runs has validated yet"
        raise BadInput(f"--sort {metric}: no run has this metric; there are: {there}")
    sign = -1 if descending else 1

    def place(row: Row) -> tuple[bool, float]:
        value = row.metrics.get(metric, math.nan)
        # NaN compares with nothing; a run that diverged goes last.
        return math.isnan(value), 0.0 if math.isnan(value) else sign * value

    return sorted(rows, key=place)


def table(rows: Sequence[Row], max_settings: int | None = None) -> tuple[list[str], list[list]]:
    """Names of the columns, and the rows: text, numbers and None for what is not known."""
    settings = differing_settings(rows)[:max_settings]
    metrics = sorted({name for row in rows for name in row.metrics})
    columns = [*FIXED, *settings, *metrics, "reason"]
    return columns, [
        [
            row.run,
            row.state,
            None if row.step is None else f"{row.step}/{row.max_steps or '?'}",
            row.attempts,
            *(row.config.get(key) for key in settings),
            *(row.metrics.get(name) for name in metrics),
            row.reason,
        ]
        for row in rows
    ]


def render(columns: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """Plain text: numbers to the right, words to the left, two spaces between columns."""
    texts = [list(columns), *([_short(value) for value in row] for row in cells)]
    padded = []
    for index, column in enumerate(zip(*texts, strict=True)):
        numeric = all(isinstance(row[index], int | float | None) for row in cells)
        right, width = numeric or columns[index] == "step", max(map(len, column))
        padded.append([text.rjust(width) if right else text.ljust(width) for text in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.sweeps", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("runs", type=Path, help="folder with run folders in it, at any depth")
    parser.add_argument("--sort", metavar="METRIC", help="such as val/loss; the smallest first")
    parser.add_argument("--descending", action="store_true", help="the largest first")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write everything there too")
    parser.add_argument(
        "--max-settings", type=int, default=8, help="columns of differing settings (8)"
    )
    parser.add_argument(
        "--lost-after",
        type=float,
        default=LOST_AFTER_MIN,
        metavar="MINUTES",
        help=f"a running run silent for so long is shown as lost? ({LOST_AFTER_MIN:g})",
    )
    asked = parser.parse_args(arguments)
    try:
        rows = find_rows(asked.runs, asked.lost_after)
        if asked.sort:
            rows = sort_rows(rows, asked.sort, asked.descending)
        print(render(*table(rows, asked.max_settings)))
        left_out = differing_settings(rows)[asked.max_settings :]
        if left_out:
            print(f"{len(left_out)} more settings differ; see --max-settings and --csv")
        if asked.csv:
            _write_csv(asked.csv, *table(rows))
    except BadInput as error:
        fail(str(error))


def _row(runs: Path, folder: Path, now: float, lost_after_s: float) -> Row:
    name = folder.relative_to(runs).as_posix() if folder != runs else folder.resolve().name
    try:
        status = read_status(folder)
        state = status["state"]
        silent_s = now - float(status["updated"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Row(name, "unreadable", reason=f"{FILE}: {error!r}")
    if state == "running" and silent_s > lost_after_s:
        state = "lost?"
    try:
        file = folder / "config.yaml"
        config = dict(yaml.safe_load(file.read_bytes()) or {}) if file.is_file() else {}
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return Row(name, "unreadable", reason="config.yaml: damaged; start the run again")
    return Row(
        name,
        state,
        step=status.get("step"),
        max_steps=status.get("max_steps"),
        attempts=status.get("attempts"),
        reason=" ".join(str(status.get("reason") or "").split()),
        config=_flat({k: v for k, v in config.items() if k not in NOT_SETTINGS}),
        metrics={k: number(v) for k, v in (status.get("metrics") or {}).items()},
    )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value) or "-"
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 3] + "..."


def _write_csv(file: Path, columns: list[str], cells: list[list]) -> None:
    try:
        with file.open("w", newline="") as handle:
            csv.writer(handle).writerows([columns, *cells])
    except OSError as error:
        raise BadInput(f"--csv {file}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    main(sys.argv[1:])
