"""Pictures of clips side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Panel = tuple[str, UInt8[Tensor, "clip time 3 height width"]]
CAPTION = 18
NEAREST = Image.Resampling.NEAREST


def scale_of(panels: Sequence[Panel], width: int = 128) -> int:
    """Integer scale that makes panels about `width` pixels wide."""
    return max(1, round(width / panels[0][1].shape[-1]))


def draw_panels(
    panels: Sequence[Panel], scale: int, bars: Sequence[str] | None = None
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One picture per time step: a row per clip, a captioned column per panel.

    Args:
        bars: a colour per time step, drawn below the frames.
    """
    clips, time, _, height, width = panels[0][1].shape
    font = ImageFont.load_default(12)
    cell_h, cell_w = height * scale + 8, width * scale + 8
    pictures = []
    for step in range(time):
        canvas = Image.new("RGB", (cell_w * len(panels), CAPTION + cell_h * clips), "white")
        pen = ImageDraw.Draw(canvas)
        for column, (caption, frames) in enumerate(panels):
            pen.text((column * cell_w + 4, 2), caption, fill="black", font=font)
            for row in range(clips):
                pixels = frames[row, step].permute(1, 2, 0).cpu().numpy()
                image = Image.fromarray(pixels).resize((width * scale, height * scale), NEAREST)
                x, y = column * cell_w + 4, CAPTION + row * cell_h
                canvas.paste(image, (x, y))
                if bars is not None:
                    bottom = y + height * scale
                    pen.rectangle((x, bottom, x + width * scale - 1, bottom + 3), bars[step])
        pictures.append(_even(np.asarray(canvas)))
    return pictures


def _even(image: np.ndarray) -> np.ndarray:
    """Make both sides even: H.264 in 4:2:0 needs that."""
    return np.pad(
        image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), constant_values=255
    )
