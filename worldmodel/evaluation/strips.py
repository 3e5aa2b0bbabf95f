"""Rollouts side by side, as a GIF, an MP4 and a still for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tokenizer import video

Panel = tuple[str, UInt8[Tensor, "clip time 3 height width"]]
CAPTION = 18
NEAREST = Image.Resampling.NEAREST


def draw_strip(
    panels: Sequence[Panel], prompt_steps: int, scale: int
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One picture per time step: a row per clip, a captioned column per panel.

    Frames of the prompt carry a grey bar, imagined ones a green bar.
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
                colour = "#9a9a9a" if step < prompt_steps else "#2a9d4b"
                pen.rectangle(
                    (x, y + height * scale, x + width * scale - 1, y + height * scale + 3), colour
                )
        pictures.append(_even(np.asarray(canvas)))
    return pictures


def write_strip(
    folder: Path, name: str, panels: Sequence[Panel], prompt_steps: int, fps: float
) -> list[Path]:
    """Write `<name>.gif`, `<name>.mp4` and `<name>.png` (six moments) to a folder."""
    scale = max(1, round(128 / panels[0][1].shape[-1]))
    pictures = draw_strip(panels, prompt_steps, scale)
    paths = [folder / f"{name}.{kind}" for kind in ("gif", "mp4", "png")]
    images = [Image.fromarray(picture) for picture in pictures]
    frames = [image.quantize(128, dither=Image.Dither.NONE) for image in images]
    frames[0].save(
        paths[0], save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0
    )
    video.write_video(paths[1], pictures, fps, crf=18)
    chosen = np.unique(np.linspace(prompt_steps - 1, len(pictures) - 1, 6).round().astype(int))
    groups = [chosen[:3], chosen[3:]]
    rows = [np.concatenate([pictures[i] for i in g], axis=1) for g in groups if len(g)]
    rows = [np.pad(r, ((0, 0), (0, rows[0].shape[1] - r.shape[1]), (0, 0))) for r in rows]
    Image.fromarray(np.concatenate(rows)).save(paths[2])
    return paths


def _even(image: np.ndarray) -> np.ndarray:
    """H.264 in 4:2:0 wants even sides."""
    return np.pad(
        image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), constant_values=255
    )
