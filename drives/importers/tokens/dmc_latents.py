"""Latents of Video Occupancy Models: the control suite's HDF5 with `vae_latents` or `dino_latents`.

The layout: drives/importers/recordings/dmc.py. A row of latents is a square grid, row by row.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from drives.importers.recordings.dmc import SUFFIXES, Episodes, read_episodes
from drives.importers.recordings.hdf5 import array_of, opened, rows_of
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.splits.base import default_split
from drives.tokens.spec import TokenSpec, check_tokens
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput


class Latents(NamedTuple):
    """What upstream's tokenizer makes."""

    vocab_size: int
    image_side: int


KINDS = {"vae_latents": Latents(1024, 80), "dino_latents": Latents(8192, 224)}


@dataclass(frozen=True)
class LatentOptions:
    """What the files do not say.

    Attributes:
        fps: rows per second; needed. The control suite with two repeats of an action: cheetah 50,
            walker 20.
    """

    fps: float | None = None


def find_latents(root: Path) -> list[Path]:
    """HDF5 files at `root`; BadInput where there is none."""
    found = [root] if root.is_file() else sorted(root.glob("*"))
    found = [path for path in found if path.suffix.lower() in SUFFIXES]
    if not found:
        raise BadInput(f"{root}: holds no {' or '.join(SUFFIXES)} file; give one or its folder")
    return found


def import_latents(root: Path, out: Path, options: LatentOptions) -> TokenStore:
    """Write every episode as a drive with its actions and rewards.

    Raises:
        BadInput: no --fps; a file without latents or with others than the first; or as the
            importer `dmc`.
    """
    if options.fps is None:
        raise BadInput(f"{root}: says no rate; give --fps (cheetah 50, walker 20)")
    files = find_latents(root)
    kind, tokens, episodes = read_latents(files[0])
    side = tokens.shape[-1]
    spec = TokenSpec(
        grid=(1, side, side),
        vocab_size=KINDS[kind].vocab_size,
        fps=float(options.fps),
        frames_per_step=1,
        image_size=(KINDS[kind].image_side,) * 2,
        tokenizer=f"voc {kind}",
    )
    for file in files:  # all of them before the first is written
        other, tokens, found = read_latents(file)
        check_tokens(tokens, spec, str(file))
        if (other, found.names) != (kind, episodes.names):
            raise BadInput(
                f"{file}: differs from {files[0]} in latents or actions; import it alone"
            )
    key = f"{content_key('dmc_latents', files, out.parent)}-{options}"
    return import_tokens(out, key, spec, episodes.names, lambda: _drives(files))


def read_latents(path: Path) -> tuple[str, Integer[np.ndarray, "row side side"], Episodes]:
    """Name and grids of a file's latents, and its episodes; BadInput where it has none."""
    with opened(path) as file:
        kind = next((name for name in KINDS if name in file), None)
        if kind is None:
            raise BadInput(f"{path}: holds no {' or '.join(KINDS)}; import its frames by dmc")
        values = rows_of(array_of(file, kind, "iu", 2))
        episodes = read_episodes(file)
    side = math.isqrt(values.shape[1])
    if side * side != values.shape[1] or len(values) != len(episodes.actions):
        raise BadInput(
            f"{path}: {kind} has the shape {values.shape}; give a square of tokens for each of "
            f"{len(episodes.actions)} rows"
        )
    return kind, values.reshape(-1, side, side), episodes


def _drives(files: list[Path]) -> Iterator[NewDrive]:
    for file in files:
        _, tokens, episodes = read_latents(file)
        for number, (start, stop) in enumerate(episodes.bounds):
            name = re.sub(r"[^\w-]+", "_", f"{file.stem}-{number:04d}")
            count = len(episodes.bounds) if len(files) == 1 else None
            split = default_split(name, number, count)
            actions = episodes.actions[start:stop].astype(np.float32)
            drive = TokenDrive(name, split, tokens[start:stop], actions)
            yield drive, {"source": f"control suite, {file.name}", "source_frames": [start, stop]}
