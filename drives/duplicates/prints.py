"""Prints: small pictures of a drive, about ten a second, that identify footage.

A drive's print is 32 x 32 grey pixels per sampled frame, kept on disk under the hash of its pixels.
The print of an encoded drive is its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num, UInt8
from tqdm import tqdm

from drives.drive import Drive
from drives.duplicates.pictures import SIDE, pictures_of
from drives.splits.footage import Footage
from drives.tokens.store import TokenStore
from training.disk.leftovers import written_whole
from training.errors import BadInput

RATE_HZ = 10.0
VERSION = "v1"  # raise it with every change of a sampled pixel


@dataclass(frozen=True)
class Print:
    """The print of a drive.

    Attributes:
        every: frames from one sample to the next.
        fps: of the frames.
        pictures: uint8 [sample 32 32], or unsigned tokens [sample cell].
    """

    footage: Footage
    fps: float
    every: int
    pictures: Num[np.ndarray, "sample *size"]

    @property
    def rate_hz(self) -> float:
        return self.fps / self.every

    @cached_property
    def seconds(self) -> Float[np.ndarray, " sample"]:
        """Time of each sample."""
        return np.arange(len(self.pictures)) * (self.every / self.fps)

    @cached_property
    def frames(self) -> Float[np.ndarray, " sample"]:
        """The same on a clock that gives every frame a tenth of a second."""
        return np.arange(len(self.pictures)) * (self.every / RATE_HZ)


def sampled_every(fps: float) -> int:
    """Frames from one sample to the next, for about ten samples a second."""
    return max(1, int(fps / RATE_HZ))


def prints_of(drives: Sequence[Drive], cache: Path, on_corrupt: str = "stop") -> list[Print]:
    """The prints of drives; missing ones are decoded, and kept below `cache`.

    Args:
        on_corrupt: "skip" leaves out what cannot be decoded, with a note.

    Raises:
        BadInput: a frame cannot be decoded, and `on_corrupt` is "stop".
    """
    found = []
    for drive in tqdm(drives, "sampling drives", unit="drive", delay=3.0, leave=False):
        try:
            pictures = _pictures(drive, cache / "prints")
        except BadInput as error:
            if on_corrupt == "stop":
                raise
            print(f"note: {error}; the search for near-duplicates goes on without it")
            continue
        found.append(Print(drive.footage, drive.fps, sampled_every(drive.fps), pictures))
    return found


def _pictures(drive: Drive, kept: Path) -> UInt8[np.ndarray, "sample 32 32"]:
    file = kept / f"{drive.footage.content}{drive.rate_mark}-{VERSION}.npy"
    if (found := _read(file)) is not None:
        return found
    kept.mkdir(parents=True, exist_ok=True)
    sampled = islice(drive.frames(), 0, None, sampled_every(drive.fps))
    with written_whole(file) as partial, partial.open("wb") as opened:
        np.save(opened, pictures_of(sampled))
    return np.load(file, mmap_mode="r")


def _read(file: Path) -> UInt8[np.ndarray, "sample 32 32"] | None:
    """A kept print; None where there is none, or a damaged one, which is removed."""
    if not file.exists():
        return None
    try:
        found: np.ndarray = np.load(file, mmap_mode="r")
        if found.dtype == np.uint8 and found.shape[1:] == (SIDE, SIDE):
            return found
    except (ValueError, EOFError) as error:
        print(f"warning: {file}: damaged ({error}); the drive is sampled again")
    file.unlink()
    return None


def token_prints(store: TokenStore) -> list[Print]:
    """The prints of a token store's drives; their frames are token steps."""
    fps = store.spec.fps / store.spec.frames_per_step
    every = sampled_every(fps)
    return [
        Print(footage, fps, every, drive.tokens.reshape(len(drive.tokens), -1)[::every])
        for footage, drive in zip(store.footage(), store.all, strict=True)
        if not drive.damage
    ]
