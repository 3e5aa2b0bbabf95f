"""Curves of healthy runs, and the comparison of another run with them.

    python -m training.watch.reference run=RUN

`references/RECIPE.json` ships with the package; `python -m benchmarks.seeds` writes it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from training.cli import command
from training.disk.places import writable_file
from training.disk.plain_json import to_json
from training.errors import BadInput
from training.watch.rows import FINDINGS_FILE, METRICS_FILE, read_rows

REFERENCES = Path(__file__).parent / "references"
METRICS = (
    "val/bits_per_token",
    "train/bits_per_token",
    "train/grad_norm",
    "val/psnr",
    "val/ssim",
    "val/lpips",
    "val/codebook_usage",
    "val/codebook_perplexity",
    "train/l1",
    "doctor/usage",
    "doctor/perplexity",
    "doctor/variance",
    "doctor/gan_ratio",
    "doctor/logit_gap",
)
Curve = dict[int, float]  # by step


@dataclass(frozen=True)
class Band:
    """Range of one metric over several runs, step by step; all lists have equal length."""

    steps: list[int]
    low: list[float]
    median: list[float]
    high: list[float]


@dataclass(frozen=True)
class Reference:
    """Runs of one recipe that differ only in their seeds.

    Attributes:
        recipe: the experiment's name.
        runs: number of runs.
        made: overrides, commit and hardware of the runs.
        bands: least, median and greatest value over the runs, by metric.
    """

    recipe: str
    runs: int
    made: dict[str, Any]
    bands: dict[str, Band]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_json(asdict(self)) + "\n")


def read_curves(run: Path) -> dict[str, Curve]:
    """Every metric of a run folder by step; the last value of a step trained twice.

    Raises:
        BadInput: there is no metrics.jsonl.
    """
    file = run / METRICS_FILE
    if not file.is_file():
        raise BadInput(f"run={run}: has no metrics.jsonl; give a run folder such as runs/NAME")
    curves: dict[str, Curve] = {}
    for row in read_rows(file):
        for key, value in row.items():
            if key in METRICS and value is not None:
                curves.setdefault(key, {})[row["step"]] = float(value)
    return curves


def band_of(runs: Sequence[Path]) -> dict[str, Band]:
    """The bands over the steps that all runs have."""
    curves = [read_curves(run) for run in runs]
    bands = {}
    for metric in METRICS:
        each = [curve.get(metric, {}) for curve in curves]
        steps = sorted(set.intersection(*(set(curve) for curve in each)))
        if steps:
            values = np.array([[curve[step] for step in steps] for curve in each])
            parts = (values.min(0), np.median(values, 0), values.max(0))
            low, median, high = (np.round(part, 5).tolist() for part in parts)
            bands[metric] = Band(steps, low, median, high)
    return bands


def shipped_reference(run: Path) -> Path | None:
    """The shipped reference of the run's recipe; None where there is none.

    Raises:
        BadInput: the run has no config.yaml.
    """
    config = run / "config.yaml"
    if not config.is_file():
        raise BadInput(f"run={run}: has no config.yaml; give a run folder, or reference=FILE")
    file = REFERENCES / f"{OmegaConf.select(OmegaConf.load(config), 'name')}.json"
    return file if file.is_file() else None


def open_reference(file: Path) -> Reference:
    """Read what `Reference.write` wrote.

    Raises:
        BadInput: there is no such file, or it holds no reference.
    """
    if not file.is_file():
        raise BadInput(f"reference={file}: no such file; make one with python -m benchmarks.seeds")
    try:
        values = json.loads(file.read_text())
        bands = {name: Band(**band) for name, band in values.pop("bands").items()}
        return Reference(**values, bands=bands)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file}: is no reference ({error}); make it anew") from error


def compare(curves: dict[str, Curve], bands: dict[str, Band]) -> list[tuple[str, ...]]:
    """Rows of metric, last step, value, band there, and largest distance from the band."""
    rows: list[tuple[str, ...]] = []
    for metric in METRICS:
        curve, band = curves.get(metric, {}), bands.get(metric)
        if band is not None:
            rows.append((metric, *_beside(curve, band)))
        elif curve:
            rows.append((metric, str(max(curve)), f"{curve[max(curve)]:.4g}", "", ""))
    return rows


def _beside(curve: Curve, band: Band) -> tuple[str, str, str, str]:
    """Row of one metric: the band is interpolated; steps beyond it are left out."""
    steps = [step for step in sorted(curve) if band.steps[0] <= step <= band.steps[-1]]
    if not steps:
        return "", "", "", "not in this run"
    low, high = (np.interp(steps, band.steps, edge) for edge in (band.low, band.high))
    values = np.array([curve[step] for step in steps])
    # A few seeds do not span the normal range: half a band on either side counts as normal.
    slack = 0.5 * (high - low) + 0.01 * np.abs(high)
    below, above = values < low - slack, values > high + slack
    verdict = "below" if below[-1] else "above" if above[-1] else "normal"
    if (below | above).any():
        verdict += f", {(below | above).mean():.0%} of the steps outside"
    return str(steps[-1]), f"{values[-1]:.4g}", f"{low[-1]:.4g} to {high[-1]:.4g}", verdict


def examine(run: Path, reference_file: Path | None = None, out: str | None = None) -> None:
    """Print and draw a run beside its reference, with the doctor's findings.

    Without a given or shipped reference, only the run is shown.

    Raises:
        BadInput: the run or the reference cannot be read, or the run has no figures yet.
    """
    curves = read_curves(run)
    if not curves:
        raise BadInput(f"run={run}: its metrics.jsonl holds no figures yet")
    file = reference_file or shipped_reference(run)
    reference = open_reference(file) if file else Reference("", 0, {}, {})
    beside = f"{reference.runs} healthy runs" if file else "no reference for this recipe"
    head = ("metric", "step", "this run", beside, "verdict" if file else "")
    table = [head, *compare(curves, reference.bands)]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(head))]
    for cells in table:
        print("  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip())
    if settings := reference.made.get("settings"):
        print(f"those were made with {' '.join(settings)}")
    for row in read_rows(run / FINDINGS_FILE):
        done = row["treated"].get("treatment", "nothing")
        print(f"step {row['step']}: {row['name']}, {row['says']}; done: {done}")
    picture = Path(out) if out else run / "curves.png"
    draw(curves, reference.bands, picture)
    print(f"curves: {picture}")


def draw(curves: dict[str, Curve], bands: dict[str, Band], picture: Path) -> None:
    """One panel per metric: the band in grey, the run in colour."""
    from matplotlib.figure import Figure

    shown = [metric for metric in METRICS if metric in bands or curves.get(metric)]
    figure = Figure(figsize=(12, 2.4 * -(-len(shown) // 3)), layout="constrained")
    for index, metric in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 3), 3, index + 1, title=metric)
        if band := bands.get(metric):
            axes.fill_between(band.steps, band.low, band.high, color="0.8")
            axes.plot(band.steps, band.median, color="0.5", linewidth=1)
        curve = sorted(curves.get(metric, {}).items())
        axes.plot([s for s, _ in curve], [v for _, v in curve], color="tab:red", marker=".")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


@command("commands/examine")
def main(cfg: DictConfig) -> None:
    out = None if cfg.out is None else str(writable_file("out", cfg.out))
    examine(Path(cfg.run), Path(cfg.reference) if cfg.reference else None, out)


if __name__ == "__main__":
    main()
