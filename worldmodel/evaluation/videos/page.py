"""The ruler's result as a text table and as an HTML page that opens from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch.nn import functional as F

from drives.clips.preprocessing import to_pixels, to_uint8
from training.pages import html_page
from training.pages.text_table import text_table
from worldmodel.evaluation.videos.clips import VideoClips
from worldmodel.evaluation.videos.pairs import COPY, FAKE

FILE = "ruler.html"
NAMES = {
    "fvd": "FVD (I3D)",
    "fid": "FID (Inception)",
    "statistics": "Frechet distance of clip statistics",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
}
AGREEMENT = ("error", "correlation", "slope")
SHOWN_CLIPS, SHOWN_FRAMES, SHOWN_HEIGHT = 3, 6, 96


def distance_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Value and floors of each distance."""
    rows = []
    for kind, found in result.get("distances", {}).items():
        half = found["fake_at_half"]
        floors = found["floors"]
        numbers = f"{found['num_real']}, {found['num_fake']}"
        rows.append([NAMES[kind], "fake", told(found), numbers])
        copied = floors["copy_first_frame"]
        rows.append([NAMES[kind], "floor: real, frozen at its first frame", told(copied), numbers])
        rows.append([NAMES[kind], "fake, fewer clips", f"{half['value']:.4g}", str(half["num"])])
        other = floors["real_other_half"]
        rows.append([NAMES[kind], "real against its other half", told(other), str(half["num"])])
    return rows


def paired_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Means over pairs."""
    if "paired" not in result:
        return []
    mean = result["paired"]["mean"]
    metrics = list(mean[FAKE])
    rows = [[name, *(told(mean[row][m]) for m in metrics)] for name, row in ROWS]
    over = result["paired"]["over_floor"]
    return [*rows, ["fake minus floor", *(told(over[m]) for m in metrics)]]


ROWS = (("fake", FAKE), ("floor: last frame of the prompt", COPY))


def told(estimate: Mapping[str, Any]) -> str:
    """ "12.3 [11.9, 12.8]"; "-" where there is no value."""
    shown = html_page.shown
    if estimate["low"] is None:
        return shown(estimate["value"])
    return f"{shown(estimate['value'])} [{shown(estimate['low'])}, {shown(estimate['high'])}]"


def as_text(result: Mapping[str, Any]) -> str:
    """The result for a terminal."""
    parts = []
    if rows := distance_rows(result):
        parts.append(text_table(["distance", "", "value [95 %]", "clips"], rows))
    if rows := paired_rows(result):
        heads = [NAMES[m] for m in result["paired"]["mean"][FAKE]]
        parts.append(text_table([f"{result['paired']['num_pairs']} pairs", *heads], rows))
    if rows := _alone_rows(result):
        parts.append(text_table(["by itself", "real", "fake"], rows))
    if rows := control_rows(result):
        parts.append(text_table(["control", *AGREEMENT], rows))
    parts += [f"not measured: {name}: {why}" for name, why in result["refused"].items()]
    parts += [f"warning ({name}): {text}" for name, text in result["warnings"].items()]
    return "\n\n".join(parts)


def _alone_rows(result: Mapping[str, Any]) -> list[list[str]]:
    single = result.get("single", {})
    return [
        [name, *(told(sides[side]) for side in ("real", "fake"))] for name, sides in single.items()
    ]


def write_page(
    folder: Path, result: Mapping[str, Any], clips: tuple[VideoClips, VideoClips]
) -> Path:
    """Write `ruler.html`, and `frames.png` where there are clips to show."""
    picture = folder / "frames.png"
    shown = [_strip(one, index) for one in clips for index in _chosen(one)]
    if shown:
        _write_png(picture, np.concatenate(shown))
    paired = result.get("paired")
    return html_page.write_page(
        folder / FILE,
        Path(__file__).with_name(FILE),
        result=result,
        distances=distance_rows(result),
        pairs=paired_rows(result),
        pair_heads=[NAMES[m] for m in paired["mean"][FAKE]] if paired else [],
        alone=_alone_rows(result),
        control=control_rows(result),
        duplicates=_duplicate_rows(result),
        charts=[*_curves(result), *_by_horizon(result)],
        picture=picture if shown else None,
        num_shown=[len(_chosen(one)) for one in clips],
    )


def _curves(result: Mapping[str, Any]) -> list[Markup]:
    """Each distance against the number of clips."""
    charts = []
    for kind, found in result.get("distances", {}).items():
        curve = found["curve"]
        charts.append(
            html_page.curves(
                NAMES[kind],
                "clips (fid: frames) of each folder",
                {"fake": curve["value"]},
                curve["num_clips"],
            )
        )
    return charts


def _by_horizon(result: Mapping[str, Any]) -> list[Markup]:
    """Scores of pairs against seconds, with bands."""
    if "paired" not in result:
        return []
    by_horizon, seconds = result["paired"]["by_horizon"], result["paired"]["seconds"]
    charts = []
    for metric in by_horizon[FAKE]:
        points = {name: by_horizon[row][metric] for name, row in ROWS}
        lines = {name: [p["value"] for p in row] for name, row in points.items()}
        bands = {
            name: ([p["low"] for p in row], [p["high"] for p in row])
            for name, row in points.items()
        }
        charts.append(html_page.curves(NAMES[metric], "s after the prompt", lines, seconds, bands))
    return charts


def control_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A row per column and side."""
    rows = []
    for column, sides in result.get("control", {}).items():
        if isinstance(sides, dict):
            rows += [
                [f"{column}, {side.replace('_', ' ')}", *(told(f[k]) for k in AGREEMENT)]
                for side, f in sides.items()
            ]
    return rows


def _duplicate_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    rows = []
    for name, found in result.get("near_duplicates", {}).items():
        rows.append(
            [
                name.replace("_", " "),
                found["num_near_duplicates"],
                found["num_clips"],
                found["median_ratio"],
                "; ".join(f"{p['clip']} = {p['other']}" for p in found["pairs"][:3]),
            ]
        )
    return rows


def _chosen(clips: VideoClips) -> list[int]:
    return (
        np.unique(np.linspace(0, len(clips) - 1, SHOWN_CLIPS).astype(int)).tolist()
        if len(clips)
        else []
    )


def _strip(clips: VideoClips, index: int) -> np.ndarray:
    """Frames of a clip side by side; all strips have one size."""
    clip = clips.read(index)
    frames = clip[torch.linspace(0, len(clip) - 1, SHOWN_FRAMES).long()].movedim(-1, 1)
    size = (SHOWN_HEIGHT, 2 * SHOWN_HEIGHT)
    small = F.interpolate(to_pixels(frames), size, mode="bilinear", antialias=True)
    return np.concatenate(list(to_uint8(small).movedim(1, -1).numpy()), axis=1)


def _write_png(file: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(file)
