"""Folders of recordings as they lie, or inside of a zip, which is never unpacked to its names."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from drives import video
from drives.importers.damage import damage_named
from drives.importers.tokens.npy_file import read_npy
from training.errors import BadInput

Place = Path | zipfile.Path
MAX_ROWS = 1 << 22  # of an array: 14 hours at 83 Hz
MAX_VIDEO = 1 << 32  # bytes of a video in a zip


def places(root: Path, mark: str, depth: int) -> list[Place]:
    """The folders that hold the file `mark`: at most `depth` folders below, or in a zip there.

    Raises:
        BadInput: a zip cannot be read.
    """
    found: list[Place] = []
    archives = [root] if root.suffix.lower() == ".zip" and root.is_file() else []
    if root.is_dir():
        above = len(Path(mark).parts)
        for level in range(depth + 1):
            hits = sorted(root.glob("*/" * level + mark))
            found += [hit.parents[above - 1] for hit in hits]
        archives = sorted(root.glob("*.zip"))
    for archive in archives:
        with damage_named(archive):
            opened = zipfile.ZipFile(archive)
            inside = zipfile.Path(opened)
            names = sorted(name for name in opened.namelist() if name.endswith(f"/{mark}"))
        found += [inside / name.removesuffix(f"/{mark}") for name in names]
    return found


def place_name(place: Place) -> str:
    """A file or folder for messages: `chunk.zip: route/40`."""
    if isinstance(place, Path):
        return str(place)
    return f"{place.root.filename}: {place.at.rstrip('/')}"


def read_array(file: Place, shape: tuple[int, ...], num_rows: int | None = None) -> np.ndarray:
    """float64 [row *shape] of an .npy file of numbers; a last axis of length 1 may be there.

    Raises:
        BadInput: the file is missing, damaged, pickled, of another shape, or not finite.
    """
    where = place_name(file)

    def judge(found: tuple[int, ...], dtype: np.dtype) -> None:
        fits = found[1:] == shape or (shape == () and found[1:] == (1,))
        if not found or not fits or dtype.kind not in "fiu" or found[0] > MAX_ROWS:
            raise BadInput(
                f"{where}: holds {dtype} of shape {found}; numbers of shape "
                f"{('rows', *shape)} are expected: copy it again"
            )
        if num_rows is not None and found[0] != num_rows:
            raise BadInput(f"{where}: has {found[0]} rows for {num_rows} frames; copy it again")

    try:
        size = (
            file.stat().st_size if isinstance(file, Path) else file.root.getinfo(file.at).file_size
        )
        with damage_named(where), file.open("rb") as opened:
            values = read_npy(opened, size, where, judge)
    except (OSError, KeyError) as error:
        raise BadInput(f"{where}: cannot be read; copy the segment again") from error
    values = values.reshape(len(values), *shape).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise BadInput(f"{where}: row {bad[0]} is not finite; leave the segment out")
    return values


@dataclass(frozen=True)
class ZippedVideo:
    """A video in a zip; it is copied to a temporary file while it is read."""

    archive: Path
    member: str

    @staticmethod
    def of(place: zipfile.Path) -> "ZippedVideo":
        return ZippedVideo(Path(str(place.root.filename)), place.at)

    def num_frames(self) -> int:
        """BadInput as `drives.video.num_frames`."""
        with self._copied() as path:
            return video.num_frames(path)

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""
        with self._copied() as path:
            yield from video.read_frames(path, start, stop)

    @contextmanager
    def _copied(self) -> Iterator[Path]:
        where = f"{self.archive}: {self.member}"
        with tempfile.TemporaryDirectory(prefix="zipped-") as folder:
            path = Path(folder, f"video{Path(self.member).suffix}")
            with damage_named(where), zipfile.ZipFile(self.archive) as opened:
                if opened.getinfo(self.member).file_size > MAX_VIDEO:
                    raise BadInput(f"{where}: is larger than {MAX_VIDEO} bytes; unpack the zip")
                with opened.open(self.member) as packed, path.open("wb") as copy:
                    shutil.copyfileobj(packed, copy)
            try:
                yield path
            except BadInput as error:
                raise BadInput(str(error).replace(str(path), where)) from error
