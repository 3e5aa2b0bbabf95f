"""Checkpoints side by side on the same cards, with the significance of each difference.

    python -m worldmodel.evaluation.compare RUN RUN ... [card=NAME] [setting=value ...]

Takes own and converted checkpoints. Evaluates every RUN as eval.py does, into a folder below `out`;
real clips are decoded once. Differences to the first RUN are paired over clips, with an interval
over drives.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from training.cli import command
from training.command_line import named_in
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.pages.html_page import write_page
from training.pages.text_table import text_table
from worldmodel.evaluation.compare.pairs import Evaluation, Row, rows_of
from worldmodel.evaluation.judge import CLIPS, METRICS, check_settings, judge
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.subject import Decoded

PAGE, RESULT = "compare.html", "compare.json"


def compare(cfg: DictConfig) -> list[Row]:
    """Evaluate `cfg.runs`, print the table, write JSON and page into `cfg.out`.

    Raises:
        BadInput: fewer than two runs, or as eval.py.
    """
    runs = [str(run) for run in cfg.runs or ()]
    if len(runs) < 2:
        raise BadInput(
            f"{len(runs)} checkpoints: name two or more to compare, such as runs/a runs/b"
        )
    check_settings(cfg)
    out = writable_folder("out", cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    evaluations, decoded = [], Decoded()
    for run, label in zip(runs, labels_of(runs), strict=True):
        print(f"\n== {label}: {run}")
        own = OmegaConf.merge(cfg, {"ckpt": run, "out": str(out / label)})
        assert isinstance(own, DictConfig)
        folder = judge(own, decoded)
        files = (json.loads((folder / name).read_text()) for name in (METRICS, CLIPS))
        evaluations.append(Evaluation(label, *files))
    rows = rows_of(evaluations)
    result = {"checkpoints": dict(zip(labels_of(runs), runs, strict=True)), "rows": _plain(rows)}
    (out / RESULT).write_text(to_json(finite(result)) + "\n")
    labels = [evaluation.label for evaluation in evaluations]
    columns, cells = table_of_rows(rows, labels)
    write_page(
        out / PAGE,
        Path(__file__).with_name("compare.html"),
        columns=columns,
        cells=cells,
        checkpoints=result["checkpoints"],
    )
    print(f"\n{text_table(columns, cells)}\n\n* differs from {labels[0]}\n{out / PAGE}")
    return rows


def labels_of(runs: Sequence[str]) -> list[str]:
    """Short names: those of the folders, numbered where equal."""
    names = [Path(run).name if "step-" not in Path(run).name else _named(run) for run in runs]
    return [
        f"{name}-{names[:i].count(name) + 1}" if name in names[:i] else name
        for i, name in enumerate(names)
    ]


def table_of_rows(rows: Sequence[Row], labels: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells: each score with its interval, then differences to the first run."""
    first, *others = labels
    columns = ["card", "system", "score", first]
    for label in others:
        columns += [label, f"{label} - {first}"]
    cells = []
    for row in rows:
        line = [row.card, row.system, row.score, interval(row.scores[0])]
        for index in range(1, len(labels)):
            found = row.differences[index]
            shown = interval(found.plain()) if found else row.why[index] or "-"
            line += [interval(row.scores[index]), shown + " *" * row.significant(index)]
        cells.append(line)
    return columns, cells


def _named(run: str) -> str:
    """run-step-N for the checkpoint folder run/checkpoints/step-N."""
    path = Path(run)
    owner = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return f"{owner.name}-{path.name}"


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


@command("commands/compare_models")
def _main(cfg: DictConfig) -> None:
    compare(cfg)


def main() -> None:
    sys.argv[1:] = named_in(sys.argv[1:], "runs")
    _main()
