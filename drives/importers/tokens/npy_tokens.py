"""Tokens in .npy files [frame height width], one recording each, as Driving_Simulator trains on.

github.com/fabP258/Driving_Simulator (no licence). The files say neither rate nor vocabulary.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from drives.importers.damage import damage_named
from drives.importers.tokens.npy_file import read_npy
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.splits.base import SPLITS, default_split
from drives.tokens.spec import TokenSpec, check_tokens
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput

MIN_FRAMES = 2  # a single one has no future


@dataclass(frozen=True)
class NpyOptions:
    """What the files do not say.

    Attributes:
        fps: frames per second; needed.
        vocab_size: number of different tokens; needed (Driving_Simulator's FSQ: 15360).
        pixels_per_token: height and width in pixels of the image that one token stands for.
        tokenizer: what made the tokens.
    """

    fps: float | None = None
    vocab_size: int | None = None
    pixels_per_token: int = 16
    tokenizer: str = "driving_simulator"


def find_npy(root: Path) -> list[Path]:
    """The .npy files at or below `root`; BadInput where there is none."""
    found = [root] if root.is_file() else sorted(root.rglob("[!.]*.npy"))
    found = [file for file in found if file.suffix == ".npy"]
    if not found:
        raise BadInput(f"{root}: holds no .npy file; give tokens [frame height width]")
    return found


def import_npy(root: Path, out: Path, options: NpyOptions) -> TokenStore:
    """Write every file as a drive, called after its path below `root`.

    A first folder called train..., val... or test... is its split; else its name decides
    (docs/drives.md).

    Raises:
        BadInput: no --fps or --vocab-size; a file that is no array of integers, of another grid
            than the first, too short, or with a token outside of the vocabulary.
    """
    if options.fps is None or options.vocab_size is None:
        raise BadInput(
            f"{root}: says neither rate nor vocabulary; give --fps and --vocab-size "
            "(Driving_Simulator's tokenizer: 15360)"
        )
    files = find_npy(root)
    first = read_tokens(files[0])
    height, width = first.shape[1:]
    spec = TokenSpec(
        grid=(1, height, width),
        vocab_size=options.vocab_size,
        fps=float(options.fps),
        frames_per_step=1,
        image_size=(height * options.pixels_per_token, width * options.pixels_per_token),
        tokenizer=options.tokenizer,
    )
    for file in files:  # all of them before the first is written
        check_tokens(read_tokens(file), spec, str(file))
    key = f"{content_key('npy_tokens', files, out.parent)}-{options}"
    return import_tokens(out, key, spec, (), lambda: _drives(root, files))


def read_tokens(file: Path) -> Integer[np.ndarray, "frame height width"]:
    """A file's array; BadInput where it holds something else."""

    def judge(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if dtype.kind not in "iu" or len(shape) != 3 or min(shape[1:]) < 1:
            raise BadInput(
                f"{file}: holds {dtype} of shape {shape}; give integers [frame height width]"
            )
        if shape[0] < MIN_FRAMES:
            raise BadInput(f"{file}: has {shape[0]} frames; give at least {MIN_FRAMES}")

    with damage_named(file), file.open("rb") as opened:
        return read_npy(opened, file.stat().st_size, str(file), judge)


def _drives(root: Path, files: list[Path]) -> Iterator[NewDrive]:
    folder = root if root.is_dir() else root.parent
    for index, file in enumerate(files):
        place = file.relative_to(folder).with_suffix("")
        name = re.sub(r"[^\w-]+", "_", str(place))
        named = [s for s in SPLITS if len(place.parts) > 1 and place.parts[0].startswith(s)]
        split = named[0] if named else default_split(name, index, len(files))
        tokens = read_tokens(file)
        actions = np.zeros((len(tokens), 0), np.float32)
        yield TokenDrive(name, split, tokens, actions), {"source": str(file)}
