"""OpenDV-YouTube: a list of driving videos, of which some lie here; commands and contexts as text.

Layout of https://github.com/OpenDriveLab/DriveAGI/tree/main/opendv: the list
`meta/OpenDV-YouTube.json` (or the sheet as `.csv`), videos at `videos/YOUTUBER/VIDEOID.mp4`, frames
at `full_images/` or `val_images/YOUTUBER/VIDEOID/000000000.jpg`, annotations in
`10hz_YouTube_*.json`.
"""

import csv
import logging
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from drives import video
from drives.importers.recording import (
    Candidate,
    ImportOptions,
    PickedFrames,
    Recording,
    RecordingFormat,
)
from drives.importers.recordings.json_lists import Entry, read_entries
from drives.video import IMAGE_SUFFIXES, in_order
from drives.video.images import check_sizes
from training.errors import BadInput

logger = logging.getLogger(__name__)

LISTS = ("OpenDV-YouTube.json", "OpenDV-YouTube.csv")
SHEET = {  # columns of the sheet, in lower case
    "train / val": "split",
    "mini / full set": "subset",
    "discarded length at the begininning (second)": "start_discard",
    "discarded length at the ending (second)": "end_discard",
}
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv")
IMAGE_FOLDERS = ("full_images", "val_images")
ANNOTATIONS = "10hz_YouTube_*.json"
FPS = 10  # of the frames that the annotations count
COMMANDS = (
    "Go straight.",
    "Pass the intersection.",
    "Turn left.",
    "Turn right.",
    "Change to the left lane.",
    "Change to the right lane.",
    "Go to the left lane branch.",
    "Go to the right lane branch.",
    "Pass the crosswalk.",
    "Pass the railroad.",
    "Merge.",
    "Make a U-turn.",
    "Stop.",
    "Deviate.",
)


@dataclass(frozen=True)
class OpenDVOptions(ImportOptions):
    """Settings of OpenDV.

    Attributes:
        captions: which annotations become captions: all (the command, then what is seen), commands
            or contexts alone, or none.
        subset: "mini": videos of OpenDV-mini alone.
    """

    captions: Literal["all", "commands", "contexts", "none"] = "all"
    subset: Literal["full", "mini"] = "full"


class _Collection:
    """The list and what lies here of it."""

    def __init__(self, root: Path, file: Path, options: OpenDVOptions) -> None:
        self.root, self.file, self.options, self.lock = root, file, options, Lock()

    def entries(self) -> list[Entry]:
        """The videos of the list."""
        keys = ("videoid", "youtuber", "split")
        if self.file.suffix == ".json":
            found = read_entries(self.file, keys)
        else:
            found = _read_sheet(self.file, keys)
        mini = self.options.subset == "mini"
        return [e for e in found if not mini or str(e.get("subset")).lower() == "mini"]

    def images_of(self, entry: Entry) -> Path | None:
        folders = (self.root / top / _folder(entry) for top in IMAGE_FOLDERS)
        return next((folder for folder in folders if folder.is_dir()), None)

    def video_of(self, entry: Entry) -> Path | None:
        stem = self.root / "videos" / _folder(entry)
        files = (stem.with_name(stem.name + ending) for ending in VIDEO_ENDINGS)
        return next((file for file in files if file.is_file()), None)

    @cached_property
    def annotations(self) -> dict[str, list[Entry]]:
        """Annotated clips of each video, by `YOUTUBER/VIDEOID`; only of videos that lie here."""
        if self.options.captions == "none":
            return {}
        files = sorted((*self.root.glob(ANNOTATIONS), *self.root.glob(f"*/{ANNOTATIONS}")))
        here = {_folder(e) for e in self.entries() if self.images_of(e) or self.video_of(e)}
        clips: dict[str, list[Entry]] = {}
        keys = ("cmd", "blip", "folder", "first_frame", "last_frame")
        for file in files:
            for clip in read_entries(file, keys, lambda clip: _tail(clip["folder"]) in here):
                clips.setdefault(_tail(clip["folder"]), []).append(clip)
        return clips

    def read(self, entry: Entry) -> list[Recording]:
        name = _folder(entry)
        images, file = self.images_of(entry), self.video_of(entry)
        source: tuple[Path, ...] | PickedFrames
        if images is not None:
            found = in_order(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise BadInput(f"{images}: holds no images; extract the frames again")
            check_sizes(found)
            source, count = tuple(found), len(found)
            number_of = {path.stem: index for index, path in enumerate(found)}
        else:
            assert file is not None, "find lists what is here"
            source = _picked(file, entry)
            count = len(source.indices)
            number_of = {}
        with self.lock:  # videos are read by several threads
            clips = self.annotations.get(name, [])
        captions = [_caption(clip, number_of, count, self.options.captions) for clip in clips]
        meta: dict[str, Any] = {
            "source": f"OpenDV-YouTube, https://www.youtube.com/watch?v={entry['videoid']}",
            "licence": self.options.licence,
        }
        texts = sorted((c for c in captions if c), key=lambda c: (c["start"], c["stop"]))
        meta |= {"captions": texts} if texts else {}
        split = {"train": "train", "val": "val"}.get(str(entry["split"]).strip().lower())
        nothing = np.zeros((count, 0))
        return [Recording(name.replace("/", "-"), source, FPS, (), nothing, meta, split=split)]


def find(root: Path, options: OpenDVOptions) -> list[Candidate]:
    """The videos of the list that lie here, as frames or whole; BadInput without a list."""
    places = [folder / name for folder in (root / "meta", root) for name in LISTS]
    file = next((path for path in places if path.is_file()), None)
    if file is None:
        raise BadInput(
            f"{root}: no meta/{LISTS[0]} or .csv; save the sheet of OpenDV-YouTube there"
        )
    collection = _Collection(root, file, options)
    try:
        entries = collection.entries()
    except BadInput as error:
        return [Candidate(str(file), partial(_refuse, str(error)))]
    here = [e for e in entries if collection.images_of(e) or collection.video_of(e)]
    if not here:
        reason = (
            f"{file}: lists {len(entries)} videos, and none lies in videos/, full_images/ or "
            "val_images/ as YOUTUBER/VIDEOID; download some"
        )
        return [Candidate(str(file), partial(_refuse, reason))]
    logger.info("%s: %d of %d videos lie here", file, len(here), len(entries))
    return [Candidate(_folder(entry), partial(collection.read, entry)) for entry in here]


def _refuse(reason: str) -> list[Recording]:
    raise BadInput(reason)


def _folder(entry: Entry) -> str:
    parts = (str(entry["youtuber"]).replace(" ", "_"), str(entry["videoid"]))
    if any(not part or part in (".", "..") or "/" in part or "\\" in part for part in parts):
        raise BadInput(f"video {'/'.join(parts)!r} of the list is no name of a file; correct it")
    return "/".join(parts)


def _tail(folder: str) -> str:
    return "/".join(str(folder).rstrip("/").split("/")[-2:])


def _read_sheet(file: Path, keys: tuple[str, ...]) -> list[Entry]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file}: cannot be read ({error}); save the sheet again") from error
    named = [
        {SHEET.get(str(k).strip().lower(), str(k).strip().lower()): v for k, v in row.items()}
        for row in rows
    ]
    missing = [key for key in keys if named and key not in named[0]]
    if missing or not named:
        raise BadInput(f"{file}: has no column or row of {(missing or keys)[0]!r}; save it again")
    return named


def _seconds(entry: Entry, key: str) -> float:
    try:
        return float(entry.get(key) or 0)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{_folder(entry)}: {key} is {entry[key]!r}; give seconds") from error


def _picked(file: Path, entry: Entry) -> PickedFrames:
    """The frames that OpenDV's own script extracts: the annotations count those."""
    fps, count = video.frame_rate(file), video.num_frames(file)
    if fps < FPS:
        raise BadInput(f"{file}: has {fps:g} frames per second, {FPS} are needed; leave it out")
    start, end = _seconds(entry, "start_discard"), _seconds(entry, "end_discard")
    num_picked = int(FPS * (count // fps - start - end))
    if num_picked < 2:
        raise BadInput(
            f"{file}: of its {count / fps:.0f} s, {start:g} at the start and {end:g} at the end "
            "are discarded; nothing is left, leave it out"
        )
    # Halves are rounded to even, as NumPy does and the script with it.
    places = int(start * fps) + np.round(np.arange(num_picked) * fps / FPS).astype(int)
    return PickedFrames(file, places[places < count].tolist())


def _caption(
    clip: Entry, number_of: dict[str, int], count: int, which: str
) -> dict[str, Any] | None:
    """A clip's text and frames; None where it has no text, or its frames are not here."""
    ends = []
    for key in ("first_frame", "last_frame"):
        stem = Path(str(clip[key])).stem
        number = number_of.get(stem, int(stem) if stem.isdigit() and not number_of else None)
        if number is None:
            return None
        ends.append(number)
    texts = []
    if which in ("all", "commands") and clip["cmd"] in range(len(COMMANDS)):
        texts.append(COMMANDS[clip["cmd"]])
    if which in ("all", "contexts"):
        texts.append(str(clip["blip"] or "").strip())
    text, start, stop = " ".join(filter(None, texts)), ends[0], min(ends[1] + 1, count)
    return {"text": text, "start": start, "stop": stop} if text and start < stop else None


FORMAT = RecordingFormat("OpenDV-YouTube: videos or frames of a list", find, OpenDVOptions)
