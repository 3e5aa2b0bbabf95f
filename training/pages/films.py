"""Clips of a page: `films.html` moves all of them with one slider.

A sheet is a picture with all frames of one clip in one panel, row by row.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Clips, WebP quality (100: lossless), and by what frames are shrunk: the first that fits is taken.
LADDER = ((8, 100, 1), (8, 80, 1), (8, 50, 1), (5, 50, 1), (8, 50, 2), (4, 40, 4), (1, 30, 8))
MAX_BYTES = 6_000_000  # of one call; a page has two, and base64 adds a third
MAX_SIDE = 16383  # of a WebP
MIN_SIDE = 64  # smaller frames are enlarged, because compression would blur them
Frames = UInt8[np.ndarray, "clip time height width 3"]


def write_films(
    folder: Path,
    panels: Mapping[str, Frames],
    names: Sequence[str],
    num_prompt: int,
    fps: float,
    score: tuple[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Write sheets to a new folder; return the values of `films.html` as plain JSON.

    Of many clips, it keeps the best, the worst and some between.

    Args:
        panels: frames by caption; all have as many clips and frames.
        names: of the clips.
        num_prompt: frames that were given; later ones are imagined.
        score: name and value of every clip; lower is better and comes first.
    """
    num_frames = next(iter(panels.values())).shape[1]
    columns = math.ceil(math.sqrt(num_frames))
    for most, quality, shrunk in LADDER:
        clips = _kept(len(names), score and score[1], most)
        sheets = ([_sheet(frames[clip], columns) for frames in panels.values()] for clip in clips)
        if encoded := _encoded(sheets, len(clips), quality, shrunk):
            break
    folder.mkdir()
    shown = []
    for clip, contents in zip(clips, encoded, strict=False):
        files = [f"{folder.name}/{clip}_{number}.webp" for number in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            (folder.parent / file).write_bytes(content)
        said = f", {score[0]} {score[1][clip]:.3g}" if score else ""
        shown.append({"title": f"{names[clip]}{said}", "sheets": files})
    return {
        **{"fps": fps, "num_prompt": num_prompt, "num_frames": num_frames},
        **{"columns": columns, "rows": math.ceil(num_frames / columns)},
        "panels": [
            {"caption": caption, "height": frames.shape[2], "width": frames.shape[3]}
            for caption, frames in panels.items()
        ],
        "clips": shown,
        "ranked": score is not None,
    }


def _kept(num: int, score: Sequence[float] | None, most: int) -> list[int]:
    """At most `most` clips, from the best to the worst at even ranks."""
    ranks = np.arange(num) if score is None else np.argsort(score, kind="stable")
    chosen = np.linspace(0, num - 1, min(most, num)).round().astype(int)
    kept: list[int] = ranks[chosen].tolist()
    return kept


def _sheet(frames: UInt8[np.ndarray, "time height width 3"], columns: int) -> Image.Image:
    scale = math.ceil(MIN_SIDE / min(frames.shape[1:3]))
    frames = frames.repeat(scale, 1).repeat(scale, 2)
    missing = -len(frames) % columns
    frames = np.pad(frames, ((0, missing), (0, 0), (0, 0), (0, 0)))
    rows = frames.reshape(-1, columns, *frames.shape[1:])
    return Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows]))


def _encoded(
    clips: Iterable[Sequence[Image.Image]], num_clips: int, quality: int, shrunk: int
) -> list[list[bytes]]:
    """All sheets; none where they exceed `MAX_BYTES`, or one of them `MAX_SIDE`."""
    encoded: list[list[bytes]] = []
    for sheets in clips:
        if max(max(sheet.size) for sheet in sheets) > MAX_SIDE * shrunk:
            return []
        encoded.append([_webp(sheet, quality, shrunk) for sheet in sheets])
        size = sum(len(content) for row in encoded for content in row)
        if size * num_clips > MAX_BYTES * len(encoded):  # as the first clips, so all
            return []
    return encoded


def _webp(sheet: Image.Image, quality: int, shrunk: int) -> bytes:
    buffer = io.BytesIO()
    sheet.reduce(shrunk).save(buffer, "webp", quality=quality, lossless=quality == 100, method=2)
    return buffer.getvalue()
