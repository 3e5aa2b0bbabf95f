"""Saves a dream, from its clip to its newest frame: MP4, GIF, drive, LeRobot episode.

It is decoded anew from its tokens, so nothing that a slow page left out is missing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from drives.exporters.formats import EXPORT_FORMATS
from drives.video import write_video
from drives.writing import write_drive
from training.disk.places import made_folder
from training.errors import BadInput
from training.ranges import one_of, within
from worldmodel.env.dream import Dream
from worldmodel.env.world import DreamWorld
from worldmodel.evaluation.report.strips import write_gif

FORMS = ("mp4", "gif", "drive", "lerobot")
SIDE = 256  # pixels of the shorter side that videos for people have at least


def save(world: DreamWorld, dream: Dream, which: int, form: str, out: Path) -> Path:
    """Write dream number `which`; the new file or folder.

    Raises:
        BadInput: an unknown form, a number that no dream has, no frames, or a place that cannot
            be written.
    """
    one_of(FORMS, form=form)
    within(0, dream.num_dreams - 1, dream=which)
    if world.tokenizer is None:
        raise BadInput(
            f"form={form}: frames need the tokenizer of the tokens; give tokenizer=FOLDER"
        )
    place = _new(made_folder("out", out), form)
    by_grid = list(_frames(dream, which))
    frames = np.concatenate(by_grid)
    if form == "mp4":
        write_video(place, _enlarged(frames), _fps(world), crf=18)
    elif form == "gif":
        write_gif(place, list(_enlarged(frames)), _fps(world))
    else:
        folder = place if form == "drive" else place / "drives"
        _write_drive(folder / "dream", world, dream, which, by_grid)
        if form == "lerobot":
            export = EXPORT_FORMATS["lerobot"]
            export.export(folder, place / "lerobot", export.options())
    return place


def _new(out: Path, form: str) -> Path:
    """A place of a name that nothing has."""
    ending = f".{form}" if form in ("mp4", "gif") else f"-{form}"
    taken = {path.name for path in out.iterdir()}
    number = next(n for n in range(len(taken) + 1) if f"dream-{n:03d}{ending}" not in taken)
    return out / f"dream-{number:03d}{ending}"


def _fps(world: DreamWorld) -> float:
    return world.fps * world.model.spec.frames_per_step


def _frames(dream: Dream, which: int) -> Iterator[UInt8[np.ndarray, "frame h w 3"]]:
    """The frames of every grid."""
    assert dream.pixels is not None
    pixels, lead = dream.pixels.fresh(), dream.starts[which].lead
    grids = [grid[which : which + 1] for grid in dream.grids]
    for stop in range(1, len(grids) + 1):
        newest = pixels.newest(grids[:stop], [lead])
        yield newest[0].permute(0, 2, 3, 1).cpu().numpy()


def _enlarged(frames: UInt8[np.ndarray, "frame h w 3"]) -> UInt8[np.ndarray, "frame h2 w2 3"]:
    scale = max(1, -(-SIDE // min(frames.shape[1:3])))
    return frames.repeat(scale, 1).repeat(scale, 2)


def _write_drive(
    folder: Path,
    world: DreamWorld,
    dream: Dream,
    which: int,
    by_grid: list[UInt8[np.ndarray, "frame h w 3"]],
) -> None:
    """A drive; the row of the last grid is that of the one before, for none was driven yet.

    A row holds as long as in the tokens of a drive: from the last frame of its grid on.
    """
    names = world.controls.names if world.controls else ()
    rows = [row[which].cpu().numpy() for row in dream.actions]
    rows += rows[-1:] or [np.zeros(len(names), np.float32)]
    counts = [len(frames) for frames in by_grid]
    actions: Float[np.ndarray, "frame action"] = np.zeros((sum(counts), 0), np.float32)
    if names:
        actions = np.repeat(np.stack(rows), _held(counts), 0)
    start, sampling = dream.starts[which], replace(dream.sampling, seed=dream.seed)
    meta = {
        "fps": _fps(world),
        "split": "test",
        "source": f"dream of {world.model.path.name}",
        "licence": "unknown",
        "from": {"drive": start.drive, "step": start.step},
        "prompt_frames": sum(counts[: dream.prompt_steps]),
        "sampling": json.loads(json.dumps(vars(sampling), default=vars)),
    }
    write_drive(folder, np.concatenate(by_grid), actions, names, meta)


def _held(counts: Sequence[int]) -> list[int]:
    """Frames of every grid's row: from its last frame to the last but one of the next grid.

    Nobody knows the rows between the first grid's own frames; its row stands for them.
    """
    held = [*counts[1:], 1]
    held[0] += counts[0] - 1
    return held
