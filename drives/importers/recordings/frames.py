"""Folders of images, one per recording, with a table of actions or without.

    name/0001.png ...            and name/actions.csv or name.csv beside the folder
    name/frames/0001.png ...     and name/actions.csv

Names are ordered by their numbers. Where a column of the table names the files, its rows go to
them. Numbers that are times (1479424215880976321.jpg) are the frames' clock.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
from jaxtyping import Float

from drives.actions.logs import Log, read_log
from drives.actions.units import to_seconds
from drives.importers.beside import say_no_table, stray_tables, table_at, told_apart, without_drives
from drives.importers.joining import FrameClock, JoinOptions, join
from drives.importers.recording import Candidate, Recording, RecordingFormat
from drives.video import IMAGE_SUFFIXES, in_order
from drives.video.gaps import find_drops
from drives.video.images import check_sizes
from training.errors import BadInput

logger = logging.getLogger(__name__)

INNER = ("frames", "images", "img", "image", "rgb", "data")  # a folder that holds frames only
FIRST_TIME = 1e8  # smaller numbers count frames


def find(root: Path, options: JoinOptions) -> list[Candidate]:
    """Every folder with images up to two below `root`, but none of our own drives.

    Raises:
        BadInput: there is none.
    """
    below = sorted((*root.glob("[!.]*"), *root.glob("[!.]*/[!.]*")))
    folders = [folder for folder in (root, *below) if folder.is_dir() and _images(folder)]
    if not folders:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise BadInput(f"{root}: no images ({kinds}) there or two folders below; give their folder")
    # A drive's images lie in `frames/`, beside its drive.json.
    folders = without_drives(root, {f: f.resolve().parent for f in folders})
    bearers = {f: f.parent if _is_inner(f) and f != root else f for f in folders}
    names = told_apart(root, {bearer: bearer.resolve().name for bearer in bearers.values()})
    tables = {f: None if options.frames_alone else table_of(f) for f in folders}
    needed = any(tables.values())
    return [
        Candidate(
            str(f), partial(read_recording, root, f, names[bearers[f]], tables[f], needed, options)
        )
        for f in folders
    ]


def read_recording(
    root: Path, folder: Path, name: str, table: Path | None, needed: bool, options: JoinOptions
) -> list[Recording]:
    """The frames of a folder with their table.

    Raises:
        BadInput: images of several sizes or of one number, no rate, no table as `say_no_table`
            judges it, or as `join`.
    """
    if table is None and not options.frames_alone:
        say_no_table(folder, folder / "actions.csv", stray_tables(folder), needed)
    images = in_order(_images(folder))
    check_sizes(images)
    log = None if table is None else read_log(table, options.column_names)
    if log is not None:
        log, images = beside_their_files(log, images)
    times, first = times_of(images) or (None, None)
    drops = () if times is not None else tuple(find_drops(images))
    clock = FrameClock(folder, len(images), times, drops=drops, first_s=first)
    facts = join(clock, log, options)
    indices = facts.pop("indices")
    kept = images if indices is None else [images[i] for i in indices]
    meta = {"source": str(folder.relative_to(root)), "licence": options.licence}
    if indices is not None:
        meta["picked_at_fps"] = facts["fps"]
    return [Recording(id=name, source=tuple(kept), meta=meta, **facts)]


def beside_their_files(log: Log, images: list[Path]) -> tuple[Log, list[Path]]:
    """Rows in the order of the images that a column names; images without a row are left out.

    Raises:
        BadInput: a row names no image of the folder, or two rows name one.
    """
    places = {image.name: place for place, image in enumerate(images)}
    for column, cells in log.texts.items():
        files = [PureWindowsPath(cell.strip()).name for cell in cells]
        if 2 * sum(file in places for file in files) < len(files):
            continue
        seen: set[str] = set()
        for row, file in enumerate(files):
            if file not in places or file in seen:
                what = "named twice" if file in seen else f"not in {images[0].parent}"
                raise BadInput(
                    f"{log.file}: row {row}, column {column!r}: {file!r} is {what}; correct or "
                    "delete the row"
                )
            seen.add(file)
        found = np.array([places[file] for file in files])
        order = np.argsort(found)
        if len(files) < len(images):
            logger.warning("%s: has no row for %d images", log.file, len(images) - len(files))
        times = None if log.times_s is None else log.times_s[order]
        return replace(log, values=log.values[order], times_s=times), [
            images[place] for place in found[order]
        ]
    return log, images


def table_of(folder: Path) -> Path | None:
    """`actions.csv` in the folder or, where it holds frames only, above; or `<folder>.csv`."""
    above = [folder.resolve().parent / "actions"] if _is_inner(folder) else []
    return table_at([folder / "actions", folder.resolve(), *above])


def _is_inner(folder: Path) -> bool:
    return folder.name.lower() in INNER


def times_of(images: Sequence[Path]) -> tuple[Float[np.ndarray, " frame"], float] | None:
    """Seconds from the first frame, and its own since 1970; None where names are no times."""
    try:
        stems = [image.stem for image in images]
        numbers = np.array([int(stem) if stem.isdigit() else float(stem) for stem in stems], object)
    except ValueError:
        return None
    if not all(number > FIRST_TIME for number in numbers):
        return None
    whole = numbers - numbers[0]  # exact: a double cannot hold nanoseconds since 1970
    unit = float(to_seconds("t", np.array([float(numbers[-1])]))[0]) / float(numbers[-1])
    return whole.astype(np.float64) * unit, float(numbers[0]) * unit


def _images(folder: Path) -> list[Path]:
    return [p for p in folder.glob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES]


FORMAT = RecordingFormat("folders of images, with a table of actions or without", find, JoinOptions)
