"""A self-contained HTML report: videos, curves, tables, the exact config. Opens from disk."""

import html
import json
from pathlib import Path
from typing import Any

from tokenizer.metrics import MAX_PSNR_DB
from training.pages.html_page import curves, figure, page, picture, table, video

LABELS = {
    "autoregressive": "world model, autoregressive",
    "temporally_teacher_forced": "world model, one step ahead",
    "ceiling_tokenizer": "ceiling: the tokenizer's reconstruction",
    "floor_copy_last": "floor: copy the last prompt frame",
}


def write_report(
    folder: Path, card: dict[str, Any], manifest: dict[str, Any], settings: dict[str, Any]
) -> Path:
    """Write `report.html` from the card and the media that lie in `folder`."""
    body = [f"<h1>{html.escape(card['checkpoint'])}</h1>", _facts(card, manifest)]
    if "reconstruction" in card:
        body += _reconstruction(folder, card)
    else:
        body += (
            _cross_entropy(card)
            + _action_use(card)
            + _pixels(folder, card)
            + _steering(folder, card)
        )
    body += _provenance(manifest, settings)
    path = folder / "report.html"
    path.write_text(page("dashcast evaluation", body))
    return path


def _facts(card: dict[str, Any], manifest: dict[str, Any]) -> str:
    run = manifest.get("run", {})
    published = manifest.get("published", {}).get("name")
    facts = [
        f"published as {published}" if published else f"step {card['step']}",
        f"{card.get('split')} split",
        f"trained on {run.get('hardware', 'unknown hardware')}",
        f"code {str(run.get('git', ''))[:12] or 'unknown'}",
    ]
    return f"<p><small>{html.escape(' | '.join(facts))}</small></p>"


def _cross_entropy(card: dict[str, Any]) -> list[str]:
    scores = card["teacher_forced"]
    rows = [["world model", scores["nats_per_token"], scores["bits_per_token"]]]
    floors = sorted(card["floors"].items(), key=lambda item: item[1]["nats_per_token"])
    rows += [
        [f"floor: {name.replace('_', ' ')}", f["nats_per_token"], f["bits_per_token"]]
        for name, f in floors
    ]
    chart = curves(
        "bits per token", "token steps seen", {"world model": scores["bits_by_step"]}, start=1
    )
    return [
        "<h2>Cross entropy</h2><p>Fully teacher-forced: every real token is predicted from the "
        "real past; separators are not counted.</p>",
        table(["", "nats per token", "bits per token"], rows, highlight=1),
        f"<p>Accuracy of the most probable token: {figure(scores['accuracy'], '.1%')}. "
        f"A uniform guess costs {card['uniform_bits']:.2f} bits.</p>"
        f"<div class=charts>{chart}</div>",
    ]


def _action_use(card: dict[str, Any]) -> list[str]:
    if not card["action_use"]:
        return []
    return [
        "<h2>Use of actions</h2><p>What wrong actions cost, in bits per token; a model that "
        "ignores its actions shows 0.</p>",
        table(["actions", "change"], [list(row) for row in card["action_use"].items()]),
    ]


def _pixels(folder: Path, card: dict[str, Any]) -> list[str]:
    pixels = card["pixels"]
    if "skipped" in pixels:
        return [f"<h2>Predicted frames</h2><p>Not measured: {html.escape(pixels['skipped'])}.</p>"]
    names = [name for name in LABELS if name in pixels["mean"]]
    rows = [[LABELS[n], *(pixels["mean"][n][m] for m in ("psnr", "ssim", "lpips"))] for n in names]
    seconds = [step / pixels["fps"] for step in range(1, pixels["num_frames"] + 1)]
    charts = [
        curves(
            metric, "s ahead", {LABELS[n]: pixels["by_horizon"][n][metric] for n in names}, seconds
        )
        for metric in ("psnr", "ssim", "lpips")
    ]
    return [
        f"<h2>Rollouts</h2><figure>{video(folder / 'rollouts.mp4')}<figcaption>Grey bar: prompt "
        f"({pixels['num_prompt_frames']} frames). Green bar: imagined. {pixels['fps']:g} frames "
        f"per second.</figcaption></figure>",
        f"<h2>Predicted frames</h2><p>{pixels['num_clips']} clips, "
        f"{pixels['num_frames']} frames ahead, against what the camera saw. "
        f"{card['seconds_per_frame']:.3f} s per imagined frame.</p>",
        table(["", "PSNR (dB)", "SSIM", "LPIPS"], rows, highlight=2),
        _identical(pixels),
        f"<div class=charts>{''.join(charts)}</div>",
    ]


def _identical(pixels: dict[str, Any]) -> str:
    """Says which means hold frames without any error, and as what they were counted."""
    total = pixels["num_clips"] * pixels["num_frames"]
    found = [
        f"{LABELS[name]}: {count} of {total}"
        for name, count in pixels["num_identical"].items()
        if count
    ]
    if not found:
        return ""
    return (
        f"<p>Frames equal to the camera's in every pixel count as {MAX_PSNR_DB:g} dB "
        f"({'; '.join(found)}).</p>"
    )


def _steering(folder: Path, card: dict[str, Any]) -> list[str]:
    if "steering" not in card:
        return []
    steering = card["steering"]
    rows = [
        [d, steering[d]["motion_px_per_frame"], steering[d]["standard_error"]]
        for d in ("left", "straight", "right")
    ]
    calibration = steering["calibration"]
    return [
        f"<h2>Steering</h2><figure>{video(folder / 'steering.mp4')}<figcaption>The same prompts "
        "under three actions.</figcaption></figure>",
        table(["", "scene motion (px per frame)", "standard error"], rows),
        "<p>Horizontal motion of the scene ahead, by phase correlation in the upper half of the "
        "image (median over a future, mean over clips). On real frames it correlates with "
        f"<code>{html.escape(calibration['column'])}</code> at "
        f"{figure(calibration['correlation_on_real_frames'], '+.2f')}.</p>",
    ]


def _reconstruction(folder: Path, card: dict[str, Any]) -> list[str]:
    rows = [[name.replace("_", " "), value] for name, value in card["reconstruction"].items()]
    return [
        "<h2>Reconstructions</h2><p>Frames above what the tokenizer makes of them.</p>",
        picture(folder / "reconstructions.png", "frames and reconstructions"),
        table(["", ""], rows),
    ]


def _provenance(manifest: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    parts = {
        "Evaluation settings": settings,
        "Run": manifest.get("run", {}),
        "Files of the checkpoint (sha256)": manifest.get("files", {}),
        "Training config": manifest.get("config", {}),
    }
    return ["<h2>Provenance</h2>"] + [
        f"<details><summary>{name}</summary><pre>{html.escape(json.dumps(value, indent=1))}</pre>"
        "</details>"
        for name, value in parts.items()
    ]
