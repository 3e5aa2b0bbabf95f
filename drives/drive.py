"""A drive: one continuous recording of frames, and the actions that moved the car.

On disk (`docs/drives.md`): `<root>/<drive_id>/` with `video.mp4` or `frames/*.png|jpg`,
`actions.csv` or `actions.parquet`, and `drive.json`. One action row per frame; row t is
the action in force between frame t and frame t+1: it explains frame t+1.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from drives import video
from drives.actions.table import actions_file, read_actions, read_table
from drives.captions import Caption, cut_captions, pick_captions, read_captions
from drives.content import hashes_of
from drives.splits.footage import UNKNOWN, Footage, content_entry
from drives.splits.pieces import Piece
from drives.video.gaps import TIME_COLUMNS, Drop, describe, find_drops, holes, read_drops
from drives.video.images import check_sizes, image_size
from drives.video.rate import Sampled, frame_times, grid_rate, resampled, rows_over, same_rate
from drives.video.reading import read_picked
from drives.writing import RECORDED, read_meta
from training.disk.hashing import file_sha256
from training.errors import BadInput


@dataclass(frozen=True)
class Drive:
    """A recording or a piece of it, checked when opened; pixels are read on demand.

    Attributes:
        actions: float32 [frame action], one row per frame; columns as in `action_names`.
        meta: the content of `drive.json` (source, licence, captions, ...) of the whole recording.
        actions_sha256: of the action file; "" without one.
        span: the recording's frames of a piece, start <= i < stop; None: all.
        roads: "seen" or "unseen" in training, if a rule of `drives.splits` found out.
        sampled: which of these frames it shows, at another rate or in a later phase; None: all.
        version: "@1of3" of a later phase, "@mirrored" (`drives.versions`).
        mirrored: whether its frames are shown mirrored; its actions are.
    """

    path: Path
    fps: float
    split: str | None
    action_names: tuple[str, ...]
    actions: Float[np.ndarray, "frame action"] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    actions_sha256: str = field(default="", repr=False)
    span: tuple[int, int] | None = None
    roads: str = ""
    sampled: Sampled | None = field(default=None, repr=False)
    version: str = ""
    mirrored: bool = False

    @property
    def id(self) -> str:
        """The folder's name; of a piece also its frames, of a version its mark."""
        piece = "" if self.span is None else f"@{self.start}-{self.stop}"
        return f"{self.path.name}{piece}{self.version}"

    @property
    def start(self) -> int:
        return self.span[0] if self.span else 0

    @property
    def stop(self) -> int:
        return self.span[1] if self.span else self.num_recorded

    def piece(self, piece: Piece) -> "Drive":
        """A piece of this drive as a drive of its own, in its split."""
        start, stop = piece.start, piece.stop
        whole = start == 0 and stop == len(self.actions)
        return replace(
            self,
            split=piece.split,
            roads=piece.roads,
            actions=self.actions[start:stop],
            span=None if whole else (start, stop),
        )

    @cached_property
    def source(self) -> Path | list[Path]:
        """The video file, or the sorted image files."""
        return video.find_source(self.path)

    @property
    def captions(self) -> tuple[Caption, ...]:
        """The captions in `drive.json`."""
        where = str(self.path / "drive.json")
        found = read_captions(self.meta.get("captions", []), self.num_recorded, where)
        if self.span is not None:
            found = cut_captions(found, self.start, self.stop)
        return found if self.sampled is None else pick_captions(found, self.sampled.picks)

    @cached_property
    def num_recorded(self) -> int:
        """Frames of the whole recording."""
        source = self.source
        return len(source) if isinstance(source, list) else video.num_frames(source)

    @cached_property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the first frame, as its file's header says."""
        source = self.source
        return image_size(source[0]) if isinstance(source, list) else video.frame_size(source)

    @property
    def num_frames(self) -> int:
        return len(self.actions) if self.span or self.sampled else self.num_recorded

    @cached_property
    def rate_varies(self) -> bool:
        """Whether its video's time stamps lie on no grid, so that no rate is true."""
        source = self.source
        if not isinstance(source, Path) or self.num_recorded < 2:
            return False
        return video.time_stamps(source) is not None and grid_rate(frame_times(source)) is None

    @property
    def frame_times_s(self) -> Float[np.ndarray, " frame"]:
        """Seconds of every recorded frame: by `fps`, over the drops; by stamps where they vary."""
        if isinstance(self.source, Path) and self.rate_varies:
            return frame_times(self.source)[self.start : self.stop]
        steps = np.ones(self.stop - self.start)
        for drop in self._drops_of_span():
            steps[drop.after_frame + 1] += drop.num_missing
        return (np.cumsum(steps) - steps[0]) / self.fps

    def at_fps(self, fps: float) -> "Drive":
        """The drive at another rate; itself where it has that rate (within `SAME_RATE`).

        The frame nearest to each n / fps; rows are the mean over the time to the next of these.

        Raises:
            BadInput: it has too few frames for that rate.
        """
        if not self.rate_varies and same_rate(self.fps, fps):
            return self
        times = self.frame_times_s
        picks, drops = resampled(times, fps, str(self.path))
        actions = rows_over(self.actions, times, picks).astype(np.float32)
        return replace(self, fps=fps, actions=actions, sampled=Sampled(picks, tuple(drops)))

    @property
    def pixels_sha256(self) -> str:
        """sha256 of the video or of all images; kept while the files stay unchanged."""
        return hashes_of(self.path.parent).of(self.path.name, self.source)

    @property
    def digest(self) -> str:
        """sha256 of the whole content, equal for a copy with another name and dates."""
        facts = {key: value for key, value in self.meta.items() if key not in RECORDED}
        content: list[Any] = [facts, self.pixels_sha256, self.actions_sha256]
        content += [self.span, self.roads] if self.span or self.roads else []
        content += [{"fps": self.fps}] if self.sampled else []
        content += [self.version] if self.version else []
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def footage(self) -> Footage:
        """Its frames, for comparisons by content."""
        licence = str(self.meta.get("licence") or UNKNOWN)
        entry = content_entry(self.pixels_sha256, *(self.span or ()))
        return Footage(self.id, str(self.split), entry, licence, self.roads)

    @property
    def rate_mark(self) -> str:
        """For names of what is made of its frames: which of the recording's they are."""
        return (f"-{self.fps:g}fps" if self.sampled else "") + self.version

    def check_pixels(self) -> None:
        """BadInput where the video differs from the hash that `write_drive` recorded.

        Damaged H.264 usually decodes to a wrong picture without an error.
        """
        written, source = self.meta.get("video_sha256"), self.source
        if written and isinstance(source, Path) and self.pixels_sha256 != written:
            raise _altered(source, "video_sha256")

    @property
    def drops(self) -> list[Drop]:
        """Frames that the recorder dropped, by time stamps of frames or else of rows."""
        return self._drops_of_span() if self.sampled is None else list(self.sampled.drops)

    def _drops_of_span(self) -> list[Drop]:
        found = self._drops_of_recording()
        moved = [drop._replace(after_frame=drop.after_frame - self.start) for drop in found]
        return [drop for drop in moved if 0 <= drop.after_frame < self.stop - self.start - 1]

    def _drops_of_recording(self) -> list[Drop]:
        stated = read_drops(self.meta, str(self.path / "drive.json"))
        found = find_drops(self.source) if stated is None else stated
        column = next((name for name in TIME_COLUMNS if name in self.action_names), None)
        if found or stated is not None or column is None:
            return found
        file = actions_file(self.path)
        assert file is not None, "it has a column"
        # Not `actions`: float32 cannot resolve seconds since 1970.
        return holes(read_table(file)[1][:, self.action_names.index(column)])

    def frames(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`.

        Raises:
            BadInput: a frame cannot be read (named), or the video was altered (`check_pixels`).
        """
        self.check_pixels()
        frames = self._read(start, stop)
        return (frame[:, ::-1] for frame in frames) if self.mirrored else frames

    def _read(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        if self.span is None and self.sampled is None:
            return video.read_source(self.source, start, stop)
        stop = len(self.actions) if stop is None else stop
        if stop > len(self.actions):
            raise BadInput(
                f"{self.path}: {self.id} has {len(self.actions)} frames; frame {stop - 1} is none"
            )
        if self.sampled is not None:
            return read_picked(self.source, self.start + self.sampled.picks[start:stop])
        return video.read_source(self.source, start + self.start, stop + self.start)

    def select_actions(self, names: Sequence[str]) -> Float[np.ndarray, "frame action"]:
        """The named columns, in that order."""
        missing = [name for name in names if name not in self.action_names]
        if missing:
            raise BadInput(
                f"{self.path}: actions have no column {missing[0]!r}; "
                f"columns there: {', '.join(self.action_names)}"
            )
        return self.actions[:, [self.action_names.index(name) for name in names]]

    def check_frames(self, progress: bool = False) -> tuple[int, int]:
        """Decode every frame once and return their (height, width).

        Raises:
            BadInput: a frame fails to decode or has another size (named), the numbers of frames and
                action rows differ, or the video was altered (checked last, because a decoding error
                names the frame).
        """
        count, shape = 0, (0, 0, 0)
        frames = self._read()
        for frame in tqdm(frames, self.id, self.num_frames, leave=False, disable=not progress):
            count, shape = count + 1, frame.shape
        self.check_count(count)
        self.check_pixels()
        return shape[0], shape[1]

    def check_count(self, num_decoded: int) -> None:
        """BadInput unless every row of actions has a frame."""
        if num_decoded != len(self.actions):
            raise BadInput(
                f"{self.path}: {len(self.actions)} action rows but {num_decoded} frames decode; "
                "give exactly one row per frame"
            )


def open_drive(path: Path, action_names: Sequence[str] | None = None) -> Drive:
    """Open and check one drive folder; `action_names` must all be among its columns.

    Raises:
        BadInput: part of the layout is missing or wrong (file, value, remedy).
    """
    meta = read_meta(path)
    names, actions = read_actions(path)
    file = actions_file(path)
    digest = file_sha256(file) if file else ""
    drive = Drive(path, float(meta["fps"]), meta.get("split"), names, actions, meta, digest)
    if not names:
        drive = replace(drive, actions=np.zeros((drive.num_frames, 0), dtype=np.float32))
    if action_names is not None:
        drive.select_actions(action_names)
    if drive.num_frames != len(drive.actions):
        drops = drive.drops
        raise BadInput(
            f"{path}: {len(actions)} action rows for {drive.num_frames} frames"
            f"{f' ({describe(drops)})' if drops else ''}; give exactly one row per frame"
        )
    if isinstance(drive.source, list):
        check_sizes(drive.source)
    _ = drive.captions  # validates them
    if meta.get("actions_sha256") and meta["actions_sha256"] != digest:
        raise _altered(file or path / "actions.csv", "actions_sha256")
    return drive


def _altered(file: Path, record: str) -> BadInput:
    return BadInput(
        f"{file}: altered since it was written (sha256 differs); copy it again, "
        f"or drop {record} from drive.json if that was meant"
    )
