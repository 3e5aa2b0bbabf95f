"""Rollouts side by side, as a GIF, an MP4 and a still for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from drives import video
from tokenizer.compare.panels import CAPTION, Panel, draw_panels, scale_of
from training.disk.leftovers import written_whole

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
    write_gif(paths[0], pictures, fps)
    video.write_video(paths[1], pictures, fps, crf=18)
    chosen = np.unique(np.linspace(prompt_steps - 1, len(pictures) - 1, 6).round().astype(int))
    groups = [chosen[:3], chosen[3:]]
    rows = [np.concatenate([pictures[i] for i in g], axis=1) for g in groups if len(g)]
    rows = [np.pad(r, ((0, 0), (0, rows[0].shape[1] - r.shape[1]), (0, 0))) for r in rows]
    Image.fromarray(np.concatenate(rows)).save(paths[2])
    return paths


def as_arrays(
    frames: UInt8[Tensor, "clip time 3 h w"],
) -> UInt8[np.ndarray, "clip time h w 3"]:
    return rearrange(frames, "c t rgb h w -> c t h w rgb").cpu().numpy()


def write_comic(
    folder: Path,
    name: str,
    generated: UInt8[Tensor, "clip time 3 h w"],
    real: UInt8[Tensor, "clip time 3 h w"],
    num_prompt: int,
    fps: float,
) -> list[Path]:
    """Write prompt | generated | ground truth of every clip: a comic strip and a GIF.

    In `<name>.png` a clip has two rows: prompt and generated frames, prompt and ground truth.
    `<name>.gif` plays prompt, generated frames, and ground truth.
    """
    scale = scale_of([("", real)])
    shown = {"generated": _enlarged(generated, scale), "ground truth": _enlarged(real, scale)}
    num_frames = real.shape[1]
    given = np.linspace(0, num_prompt - 1, min(2, num_prompt))
    later = np.linspace(num_prompt, num_frames - 1, min(6, num_frames - num_prompt))
    moments = np.concatenate([given, later]).round().astype(int)
    rows = []
    for clip in range(len(real)):
        for caption, frames in shown.items():
            said = [caption if m >= num_prompt else "prompt" for m in moments]
            cells = zip(said, frames[clip, moments], strict=True)
            rows.append(np.concatenate([_captioned(*cell) for cell in cells], 1))
    Image.fromarray(np.concatenate(rows)).save(folder / f"{name}.png")
    prompt = [("prompt", shown["ground truth"][:, t]) for t in range(num_prompt)]
    told = [(c, frames[:, t]) for c, frames in shown.items() for t in range(num_prompt, num_frames)]
    write_gif(
        folder / f"{name}.gif",
        [
            np.concatenate([_captioned(c, frame) for frame in clips], 1)
            for c, clips in prompt + told
        ],
        fps,
    )
    return [folder / f"{name}.png", folder / f"{name}.gif"]


def _enlarged(
    frames: UInt8[Tensor, "clip time 3 h w"], scale: int
) -> UInt8[np.ndarray, "clip time h2 w2 3"]:
    return as_arrays(frames).repeat(scale, 2).repeat(scale, 3)


def _captioned(caption: str, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A frame below its caption."""
    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width + 4, height + CAPTION + 4), "white")
    ImageDraw.Draw(canvas).text((2, 1), caption, fill="black", font=ImageFont.load_default(12))
    canvas.paste(Image.fromarray(frame), (2, CAPTION))
    return np.asarray(canvas)


def write_gif(file: Path, pictures: Sequence[UInt8[np.ndarray, "h w 3"]], fps: float) -> None:
    """Pictures of one size as an endless GIF of 128 colours; it replaces a file once whole."""
    frames = [Image.fromarray(p).quantize(128, dither=Image.Dither.NONE) for p in pictures]
    duration = round(1000 / fps)
    with written_whole(file) as partial:
        frames[0].save(
            partial, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0
        )
