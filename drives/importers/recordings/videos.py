"""A folder of videos, with a table of actions beside each, or without any.

Either `name.mp4` with `name.csv`, or a folder `name/` with `video.mp4` and `actions.csv` (any
container, Parquet likewise). With one row per frame, row t is in force between frame t and frame
t+1; a table of another rate is joined by its clock. Columns get our names and SI units.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from drives import video
from drives.actions.logs import read_log
from drives.importers.beside import say_no_table, stray_tables, table_at, told_apart, without_drives
from drives.importers.joining import FrameClock, JoinOptions, join
from drives.importers.recording import (
    Candidate,
    FrameReader,
    PickedFrames,
    Recording,
    RecordingFormat,
    SquarePixels,
)
from drives.video import VIDEO_SUFFIXES
from drives.video.rate import frame_times
from training.errors import BadInput


def find(root: Path, options: JoinOptions) -> list[Candidate]:
    """A video, or all in a folder and up to two below, but none of our own drives.

    Raises:
        BadInput: there is none.
    """
    paths = [root] if root.is_file() else videos_in(root)
    root = root.parent if root.is_file() else root
    if not paths:
        kinds = ", ".join(VIDEO_SUFFIXES)
        raise BadInput(f"{root}: no videos ({kinds}) there or two folders below; give their folder")
    paths = without_drives(root, {path: path.parent for path in paths})
    bearers = {path: path.parent if path.stem == "video" else path for path in paths}
    bare = {b: b.stem if b == path else b.resolve().name for path, b in bearers.items()}
    names = told_apart(root, bare)
    count = Counter(path.parent for path in paths)
    tables = {
        path: None if options.frames_alone else table_of(path, count[path.parent] == 1)
        for path in paths
    }
    # Where no video has a table, all are frames alone; where one lacks it, it was forgotten.
    needed = any(tables.values())
    # Listed once, not for each of many videos in a folder.
    lacking = {path.parent for path, table in tables.items() if table is None}
    stray = {folder: stray_tables(folder, VIDEO_SUFFIXES) for folder in lacking}
    candidates = []
    for path in paths:
        given = (names[bearers[path]], tables[path], stray.get(path.parent, ()), needed)
        candidates.append(
            Candidate(str(path), partial(read_recording, root, path, *given, options))
        )
    return candidates


def videos_in(root: Path) -> list[Path]:
    """Videos in a folder and up to two below, but none of macOS's `._name`."""
    below = ("[!.]*", "[!.]*/[!.]*", "[!.]*/[!.]*/[!.]*")
    found = (path for pattern in below for path in root.glob(pattern))
    return sorted(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES)


def table_of(path: Path, alone: bool) -> Path | None:
    """`name.csv` beside `name.mp4`; `actions.csv` where it is `alone` in its folder."""
    stems = (["actions"] if alone or path.stem == "video" else []) + [path.stem]
    return table_at(path.with_name(stem) for stem in stems)


def read_recording(
    root: Path,
    path: Path,
    name: str,
    table: Path | None,
    stray: Sequence[str],
    needed: bool,
    options: JoinOptions,
) -> list[Recording]:
    """A video with its table of actions.

    Raises:
        BadInput: a damaged video, no table as `say_no_table` judges it, or as `join`.
    """
    if table is None and not options.frames_alone:
        wanted = "actions.csv" if path.stem == "video" else f"{path.stem}.csv"
        say_no_table(path, path.with_name(wanted), stray, needed)
    log = None if table is None else read_log(table, options.column_names)
    rate = video.frame_rate(path)
    times = frame_times(path) if rate else None
    clock = FrameClock(path, video.num_frames(path), times, rate)
    facts = join(clock, log, options)
    indices, aspect = facts.pop("indices"), video.pixel_aspect(path)
    source: Path | FrameReader = path if indices is None else PickedFrames(path, indices)
    if abs(aspect - 1) > 1e-3:
        source = SquarePixels(source, aspect)
    meta = {"source": str(path.relative_to(root)), "licence": options.licence}
    if indices is not None:
        meta["picked_at_fps"] = facts["fps"]
    return [Recording(id=name, source=source, meta=meta, **facts)]


FORMAT = RecordingFormat(
    "videos, with a table of actions beside each or without", find, JoinOptions
)
