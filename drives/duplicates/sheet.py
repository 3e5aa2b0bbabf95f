"""A sheet of pictures: each pair of drives, one above the other, where they are most alike."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from drives.drive import Drive
from drives.duplicates.match import Duplicate
from drives.tokens.store import TokenDrive
from training.disk.leftovers import written_whole

COLUMNS = 6
HEIGHT, LINE = 96, 14  # pixels of a frame, and of a caption
MOST_PAIRS = 20
Picture = UInt8[np.ndarray, "height width 3"]


def write_sheet(
    path: Path, pairs: Sequence[Duplicate], show: Callable[[str, int], Picture]
) -> Path:
    """Write a PNG with frames of the first pairs.

    Args:
        show: the picture of a drive's frame.
    """
    rows = [row for pair in pairs[:MOST_PAIRS] for row in _rows(pair, show)]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        sheet.save(partial, "PNG")
    return path


def frames_of(drives: Mapping[str, Drive]) -> Callable[[str, int], Picture]:
    """`show` for drives."""
    return lambda name, frame: next(islice(drives[name].frames(frame, frame + 1), 1))


def tokens_of(drives: Mapping[str, TokenDrive]) -> Callable[[str, int], Picture]:
    """`show` for encoded drives: a cell's colour stands for its token."""

    def show(name: str, step: int) -> Picture:
        tokens = drives[name].tokens[step].astype(np.uint64)
        grid = tokens.reshape(-1, tokens.shape[-1])
        mixed = (grid + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        shades = [(mixed >> np.uint64(bits)) & np.uint64(255) for bits in (24, 36, 48)]
        return np.stack(shades, -1).astype(np.uint8)

    return show


def _rows(pair: Duplicate, show: Callable[[str, int], Picture]) -> list[Image.Image]:
    rows = []
    for name, split, (first, last) in (
        (pair.a, pair.a_split, pair.a_frames),
        (pair.b, pair.b_split, pair.b_frames),
    ):
        frames = np.linspace(first, last, COLUMNS).round().astype(int)
        tiles = [_scaled(show(name, int(frame))) for frame in frames]
        row = Image.new("RGB", (sum(tile.width + 2 for tile in tiles), HEIGHT + LINE), "white")
        shown = ", ".join(str(frame) for frame in frames)
        ImageDraw.Draw(row).text((2, 1), f"{split}: {name}, frames {shown}", fill="black")
        left = 0
        for tile in tiles:
            row.paste(tile, (left, LINE))
            left += tile.width + 2
        rows.append(row)
    return [*rows, Image.new("RGB", (rows[0].width, LINE), "white")]


def _scaled(picture: Picture) -> Image.Image:
    height, width = picture.shape[:2]
    how = Image.Resampling.NEAREST if height < HEIGHT else Image.Resampling.BILINEAR
    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    return Image.fromarray(picture).resize(size, how)
