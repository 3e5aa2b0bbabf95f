"""A self-contained HTML report: videos, curves, tables, the exact config. Opens from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizer.metrics import MAX_PSNR_DB
from training.pages.html_page import curves, write_page
from worldmodel.evaluation.cards.terminal import table_rows

LABELS = {
    "autoregressive": "world model, autoregressive",
    "temporally_teacher_forced": "world model, one step ahead",
    "ceiling_tokenizer": "ceiling: the tokenizer's reconstruction",
    "best_of_futures": "world model, the closest of its futures",
    "floor_copy_last": "floor: copy the last prompt frame",
}
METRICS = ("psnr", "ssim", "lpips")


def write_report(
    folder: Path, found: dict[str, Any], manifest: dict[str, Any], settings: dict[str, Any]
) -> Path:
    """Write `report.html` from what the cards found and the media that lie in `folder`."""
    cards = found["cards"]
    return write_page(
        folder / "report.html",
        Path(__file__).with_name("report.html"),
        **{"folder": folder, "found": found, "manifest": manifest, "settings": settings},
        facts=_facts(found, manifest),
        tables={name: _table(card) for name, card in cards.items()},
        charts={name: _charts(card) for name, card in cards.items()},
        identical=_identical(cards.get("rollout", {})),
        max_psnr=MAX_PSNR_DB,
    )


def _facts(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    run = manifest.get("run", {})
    published = manifest.get("published", {}).get("name")
    return [
        f"published as {published}" if published else f"step {found['step']}",
        f"{found.get('split')} split",
        f"trained on {run.get('hardware', 'unknown hardware')}",
        f"code {str(run.get('git', ''))[:12] or 'unknown'}",
    ]


def _table(card: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a card's scores; floors say so in their names."""
    columns, rows = table_rows(card)
    named = [[LABELS.get(name, name.replace("_", " ")), *cells] for name, *cells in rows]
    return [column.replace("_", " ") for column in columns], named


def _charts(card: Mapping[str, Any]) -> list[Any]:
    """Scores against the horizon, with the bands of their intervals."""
    if "bits_by_step" in card:
        return [curves("bits per token", "time steps seen", {"world model": card["bits_by_step"]})]
    if not card.get("curves"):
        return []
    axis = card.get("axis") or {
        "name": "s ahead",
        "values": [frame / card["fps"] for frame in range(1, card["num_frames"] + 1)],
        "scores": METRICS,
    }
    charts = []
    for metric in axis["scores"]:
        found = {
            LABELS.get(system, system): curve[metric]
            for system, curve in card["curves"].items()
            if metric in curve
        }
        bands = {
            name: (line["low"], line["high"]) for name, line in found.items() if any(line["low"])
        }
        lines = {name: line["value"] for name, line in found.items()}
        if lines:
            charts.append(curves(metric, axis["name"], lines, axis["values"], bands))
    return charts


def _identical(card: Mapping[str, Any]) -> list[str]:
    """Which means hold frames without any error."""
    if "num_identical" not in card:
        return []
    total = card["clips"]["num"] * card["num_frames"]
    return [
        f"{LABELS[name]}: {count} of {total}"
        for name, count in card["num_identical"].items()
        if count
    ]
