"""A self-contained HTML report: videos, curves, tables, the exact config. Opens from disk."""

from pathlib import Path
from typing import Any

from tokenizer.metrics import MAX_PSNR_DB
from training.pages.html_page import curves, write_page

LABELS = {
    "autoregressive": "world model, autoregressive",
    "temporally_teacher_forced": "world model, one step ahead",
    "ceiling_tokenizer": "ceiling: the tokenizer's reconstruction",
    "floor_copy_last": "floor: copy the last prompt frame",
}
METRICS = ("psnr", "ssim", "lpips")


def write_report(
    folder: Path, card: dict[str, Any], manifest: dict[str, Any], settings: dict[str, Any]
) -> Path:
    """Write `report.html` from the card and the media that lie in `folder`."""
    values: dict[str, Any] = {"charts": []}
    if "reconstruction" in card:
        scores = card["reconstruction"].items()
        values["scores"] = [[name.replace("_", " "), value] for name, value in scores]
    else:
        values |= _cross_entropy(card)
        if "skipped" not in card["pixels"]:
            values |= _pixels(card["pixels"], values["charts"])
        if "steering" in card:
            values["steering"] = [
                [d, *(card["steering"][d][k] for k in ("motion_px_per_frame", "standard_error"))]
                for d in ("left", "straight", "right")
            ]
    return write_page(
        folder / "report.html",
        Path(__file__).with_name("report.html"),
        **{"folder": folder, "card": card, "manifest": manifest, "settings": settings},
        facts=_facts(card, manifest),
        max_psnr=MAX_PSNR_DB,
        **values,
    )


def _facts(card: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    run = manifest.get("run", {})
    published = manifest.get("published", {}).get("name")
    return [
        f"published as {published}" if published else f"step {card['step']}",
        f"{card.get('split')} split",
        f"trained on {run.get('hardware', 'unknown hardware')}",
        f"code {str(run.get('git', ''))[:12] or 'unknown'}",
    ]


def _cross_entropy(card: dict[str, Any]) -> dict[str, Any]:
    """The model, then its floors from the lowest; bits by horizon."""
    scores, units = card["teacher_forced"], ("nats_per_token", "bits_per_token")
    floors = sorted(card["floors"].items(), key=lambda item: item[1]["nats_per_token"])
    named = [("world model", scores)]
    named += [(f"floor: {name.replace('_', ' ')}", floor) for name, floor in floors]
    chart = curves("bits per token", "token steps seen", {"world model": scores["bits_by_step"]})
    rows = [[name, *(values[unit] for unit in units)] for name, values in named]
    return {"scores": rows, "charts": [chart]}


def _pixels(pixels: dict[str, Any], charts: list[str]) -> dict[str, Any]:
    """Means and curves by horizon; which means hold frames without any error."""
    names = [name for name in LABELS if name in pixels["mean"]]
    seconds = [step / pixels["fps"] for step in range(1, pixels["num_frames"] + 1)]
    by_horizon, total = pixels["by_horizon"], pixels["num_clips"] * pixels["num_frames"]
    drawn = [
        curves(metric, "s ahead", {LABELS[n]: by_horizon[n][metric] for n in names}, seconds)
        for metric in METRICS
    ]
    return {
        "frames": [[LABELS[n], *(pixels["mean"][n][m] for m in METRICS)] for n in names],
        "charts": [*charts, *drawn],
        "identical": [
            f"{LABELS[name]}: {count} of {total}"
            for name, count in pixels["num_identical"].items()
            if count
        ],
    }
