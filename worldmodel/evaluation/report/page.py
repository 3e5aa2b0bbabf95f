"""The report of an evaluation: one HTML file that opens from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tokenizer.metrics import MAX_PSNR_DB
from training.checkpoints.provenance import provenance_of
from training.pages.html_page import curves, svg, write_page
from worldmodel.evaluation.cards.config import CARDS
from worldmodel.evaluation.cards.result import VIDEO
from worldmodel.evaluation.provenance.chain import lines
from worldmodel.evaluation.report.terminal import table_rows

LABELS = {
    "autoregressive": "world model, autoregressive",
    "temporally_teacher_forced": "world model, one step ahead",
    "ceiling_tokenizer": "ceiling: the tokenizer's reconstruction",
    "best_of_futures": "world model, the closest of its futures",
    "floor_copy_last": "floor: copy the last prompt frame",
    f"ceiling_tokenizer, {VIDEO}": f"ceiling: real tokens, {VIDEO}",
    f"ceiling_one_step_ahead, {VIDEO}": f"ceiling one step ahead: real tokens, {VIDEO}",
}
SCORES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS", "fvd": "FVD", "fid": "FID"}
# Fields of every card that have a place of their own.
COMMON = (
    *("version", "hash", "skipped", "clips", "scores"),
    *("floors", "curves", "means", "films", "axis"),
    *("warnings", "lines", "by_num_clips"),
)


def write_report(
    folder: Path, found: dict[str, Any], manifest: dict[str, Any], settings: dict[str, Any]
) -> Path:
    """Write `report.html` from the cards' results and the media in `folder`."""
    cards = found["cards"]
    return write_page(
        folder / "report.html",
        Path(__file__).with_name("report.html"),
        **{"folder": folder, "found": found, "manifest": manifest, "settings": settings},
        facts=_facts(found, manifest),
        chain="\n".join(lines(provenance_of(manifest))),
        questions={name: _question(name) for name in cards},
        tables={name: _table(card) for name, card in cards.items()},
        charts={name: _charts(card) for name, card in cards.items()},
        own={name: {k: card[k] for k in card if k not in COMMON} for name, card in cards.items()},
        identical=_identical(cards.get("rollout", {})),
        max_psnr=MAX_PSNR_DB,
    )


def _facts(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    run = manifest.get("run", {})
    published = manifest.get("published", {}).get("name")
    return [
        f"published as {published}" if published else f"step {found['step']}",
        f"{found.get('split')} split",
        f"judged on {found.get('hardware', 'unknown hardware')}",
        f"trained on {run.get('hardware', 'unknown hardware')}",
        f"code {str(run.get('git', ''))[:12] or 'unknown'}",
    ]


def _question(name: str) -> str:
    """The question of a card: the first line of its settings' docstring."""
    return (CARDS[name].__doc__ or "").splitlines()[0] if name in CARDS else ""


def _table(card: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a card's scores; floors say so in their names."""
    columns, rows = table_rows(card)
    named = [[_label(name, card), *cells] for name, *cells in rows]
    return [_score(column) for column in columns], named


def _score(name: str) -> str:
    return SCORES.get(name, name.replace("_", " "))


def _label(system: str, card: Mapping[str, Any]) -> str:
    floor = "floor: " if system in card.get("floors", ()) else ""
    name, comma, by = system.partition(", ")
    return LABELS.get(system) or LABELS.get(name, floor + name.replace("_", " ")) + comma + by


def _charts(card: Mapping[str, Any]) -> list[Markup]:
    """Scores by horizon with bands of their intervals, heat of cells, calibration."""
    charts = []
    found: dict[str, dict[str, Any]] = {}
    for system, scores in card.get("curves", {}).items():
        for name, line in scores.items():
            found.setdefault(name, {})[_label(system, card)] = line
    for name, drawn in found.items():
        values = {label: line["value"] for label, line in drawn.items()}
        bands = {
            label: (line["low"], line["high"])
            for label, line in drawn.items()
            if None not in line["low"]
        }
        xlabel, x = _axis(card, len(next(iter(values.values()))))
        charts.append(curves(_score(name), xlabel, values, x, bands))
    for kind, line in card.get("by_num_clips", {}).items():
        counts = line["num_clips"]
        charts.append(curves(f"Frechet, {kind}", "clips", {"model": line["value"]}, counts))
    if steps := card.get("bits_by_step"):
        charts.append(curves("bits per token", "time steps seen", {"world model": steps}))
    if bits := card.get("bits_by_cell"):
        charts.append(_heat("bits per token, by cell of the frame", bits))
    if len(bins := card.get("calibration", ())) > 1:
        sure = [entry["confidence"] for entry in bins]
        right = {"model": [entry["accuracy"] for entry in bins], "calibrated": sure}
        charts.append(curves("accuracy", "confidence", right, sure))
    return charts


def _axis(card: Mapping[str, Any], length: int) -> tuple[str, list[float]]:
    """The x axis of a curve: the card's own, seconds, or time steps."""
    axis = card.get("axis", {})
    if len(axis.get("values", ())) == length:
        return axis["name"], axis["values"]
    seconds = length == card.get("num_frames")
    name = "s ahead" if seconds else "time steps"
    return name, [step / (card["fps"] if seconds else 1) for step in range(1, length + 1)]


def _heat(title: str, cells: list[list[float]]) -> Markup:
    chart = Figure(figsize=(4, 3), layout="constrained")
    axes = chart.subplots()
    chart.colorbar(axes.imshow(cells, cmap="inferno", vmin=0), ax=axes)
    axes.set(title=title, xticks=[], yticks=[])
    return svg(chart)


def _identical(card: Mapping[str, Any]) -> list[str]:
    """Means that hold frames without error."""
    if "num_identical" not in card:
        return []
    total = card["clips"]["num"] * card["num_frames"]
    return [
        f"{_label(name, card)}: {count} of {total}"
        for name, count in card["num_identical"].items()
        if count
    ]
