"""What an adapter of a recordings' format finds, and how it is entered in the registry."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from drives.captions import cut_captions, read_captions
from drives.video import read_source
from drives.video.gaps import DROPPED, Drop
from drives.video.reading import read_picked


class FrameReader(Protocol):
    """Frames that are neither a whole video nor image files. Picklable: workers read them."""

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""


@dataclass(frozen=True)
class PickedFrames:
    """These frames of a video, in rising order."""

    path: Path
    indices: Sequence[int]

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        return read_picked(self.path, self.indices[start:stop])


@dataclass(frozen=True)
class SquarePixels:
    """Frames whose pixels are `aspect` times as wide as high, stretched to square pixels."""

    source: Path | FrameReader
    aspect: float

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for frame in _read(self.source, start, stop):
            height, width = frame.shape[:2]
            wide = (round(width * self.aspect), height)
            size = wide if self.aspect > 1 else (width, round(height / self.aspect))
            yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def _read(
    source: Path | tuple[Path, ...] | FrameReader, start: int, stop: int
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    if isinstance(source, Path | tuple):
        return read_source(source, start, stop)
    return source.read(start, stop)


@dataclass(frozen=True)
class Recording:
    """One recording as an adapter found it; no pixels are read yet.

    Attributes:
        id: name of its drives, before `-train`, `-val`, `-test`.
        source: a video file, image files in order, or `FrameReader`.
        actions: [frame action]; row t is in force between frame t and frame t+1.
        meta: entries of `drive.json` besides fps, split and frames; `source` and `licence` always.
            Captions are those of the whole recording.
        drops: frames that are missing among its frames.
        track: latitude and longitude of every frame in degrees, where they are known; NaN for a
            frame without a fix.
        split: the whole recording is in it, as the format says; None: it is cut by time.
    """

    id: str
    source: Path | tuple[Path, ...] | FrameReader
    fps: float
    action_names: tuple[str, ...]
    actions: Float[np.ndarray, "frame action"] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    track: Float[np.ndarray, "frame 2"] | None = field(default=None, repr=False)
    split: str | None = None
    drops: Sequence[Drop] = field(default=(), repr=False)

    def about(self, start: int, stop: int) -> dict[str, Any]:
        """Entries of `drive.json` for frames start <= i < stop; BadInput for a bad caption."""
        about = dict(self.meta)
        if "captions" in about:
            where = str(about["source"])
            found = read_captions(about["captions"], len(self.actions), where)
            about["captions"] = [asdict(c) for c in cut_captions(found, start, stop)]
        if self.track is not None:
            about |= _track(self.track[start:stop])
        inside = [drop for drop in self.drops if start <= drop.after_frame < stop - 1]
        if inside:
            about[DROPPED] = [[d.after_frame - start, d.num_missing] for d in inside]
        return about

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""
        return _read(self.source, start, stop)


def _track(fixes: Float[np.ndarray, "frame 2"]) -> dict[str, Any]:
    """The entry of `drive.json`, as `splits.tracks` reads it; none where no frame has a fix."""
    known = np.flatnonzero(np.isfinite(fixes).all(axis=1))
    if not len(known):
        return {}
    lat, lon = fixes[known].T.tolist()
    places = {} if len(known) == len(fixes) else {"frame": known.tolist()}
    return {"track": {"lat_deg": lat, "lon_deg": lon, **places}}


@dataclass(frozen=True)
class ImportOptions:
    """What every format takes; a format with more settings has a subclass.

    Attributes:
        licence: of the recordings; noted in every drive.json.
    """

    licence: str = "unknown"


@dataclass(frozen=True)
class Candidate:
    """A file or folder that looks like recordings.

    Attributes:
        name: file or folder, for messages.
        read: the recordings in it; BadInput where they cannot be used.
    """

    name: str
    read: Callable[[], Sequence[Recording]]


@dataclass(frozen=True)
class RecordingFormat:
    """One foreign format.

    Attributes:
        text: what it is, in a few words.
        find: the candidates in a folder, found by names of files alone, in a fixed order;
            BadInput where there are none. Takes the folder and the options.
        options: the dataclass of its settings; each field is a flag of the command.
    """

    text: str
    find: Callable[[Path, Any], Sequence[Candidate]]
    options: type[ImportOptions] = ImportOptions

    def recordings(self, root: Path, **options: Any) -> list[Recording]:
        """All recordings of a folder.

        Raises:
            BadInput: there are none, or one cannot be used.
        """
        candidates = self.find(root, self.options(**options))
        return [recording for candidate in candidates for recording in candidate.read()]
