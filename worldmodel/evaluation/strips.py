"""Rollouts side by side, as a GIF, an MP4 and a still for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from drives import video
from tokenizer.compare.panels import Panel, draw_panels, scale_of

PROMPT, IMAGINED = "#9a9a9a", "#2a9d4b"


def write_strip(
    folder: Path, name: str, panels: Sequence[Panel], prompt_steps: int, fps: float
) -> list[Path]:
    """Write `<name>.gif`, `<name>.mp4` and `<name>.png` (six moments) to a folder.

    Frames of the prompt carry a grey bar, imagined ones a green bar.
    """
    bars = [PROMPT if step < prompt_steps else IMAGINED for step in range(panels[0][1].shape[1])]
    pictures = draw_panels(panels, scale_of(panels), bars)
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
