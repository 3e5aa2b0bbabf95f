"""Bags of ROS 1 and ROS 2 and MCAP files: an image topic, and what other topics say of the car.

A bag is a `.bag`, `.db3` or `.mcap` file, or a folder with `metadata.yaml`. Times are those in the
headers; a message without one counts when it was received.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from drives.actions.derived import curvature_per_m
from drives.actions.signals import MAX_GAP_S, Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.damage import errors_named
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.importers.recordings.ros_messages import (
    ACKERMANN_DEFINITIONS,
    FIX,
    IMAGES,
    QUANTITIES,
    is_fixed,
    pixels,
    stamp_s,
)
from training.errors import BadInput
from training.ranges import positive

logger = logging.getLogger(__name__)

SUFFIXES = (".bag", ".mcap", ".db3")
FOLDER_MARK = "metadata.yaml"
MIN_FRAMES = 20  # a shorter piece cannot be cut into three splits
MAX_STEP = 1.75  # median steps between two frames; beyond, a frame is missing
TRACK = ("lat_deg", "lon_deg")


@dataclass(frozen=True)
class RosOptions(ImportOptions):
    """Settings of ROS bags.

    Attributes:
        licence: of the recordings; noted in every drive.json.
        topic: of the images; needed where a bag holds several.
        signals: topics of the actions, with commas between them; all that are known by default.
        max_gap_s: longest time between two messages of a signal; inf for commands that are only
            sent when they change.
    """

    topic: str | None = None
    signals: str | None = None
    max_gap_s: float = MAX_GAP_S


@dataclass(frozen=True)
class BagFrames:
    """Frames of an image topic from number `first` on; `received_ns` is of every message in it."""

    path: Path
    topic: str
    first: int
    received_ns: np.ndarray = field(repr=False)

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""
        if start >= stop:
            return
        begin, end = self.first + start, self.first + stop
        since, until = int(self.received_ns[begin]), int(self.received_ns[end - 1]) + 1
        skipped = begin - int(np.searchsorted(self.received_ns, since))
        with opened(self.path) as reader:
            of = [c for c in reader.connections if c.topic == self.topic]
            found = reader.messages(of, since, until)
            for number in range(begin, end):
                with bag_errors_named(self.path):
                    connection, _, raw = next(islice(found, skipped, None))
                    message = reader.deserialize(raw, connection.msgtype)
                skipped = 0
                yield pixels(message, f"{self.path}: {self.topic}, message {number}")


def find(root: Path, options: RosOptions) -> list[Candidate]:
    """A bag, or those in a folder; BadInput where there is none."""
    if (root.is_file() and root.suffix in SUFFIXES) or (root / FOLDER_MARK).is_file():
        found = [root]
    else:
        files = [path for path in root.glob("*") if path.suffix in SUFFIXES]
        found = sorted([*files, *(mark.parent for mark in root.glob(f"*/{FOLDER_MARK}"))])
    if not found:
        raise BadInput(f"{root}: holds no ROS bag ({', '.join(SUFFIXES)} or {FOLDER_MARK})")
    return [Candidate(str(path), partial(read_recordings, path, options)) for path in found]


def read_recordings(path: Path, options: RosOptions) -> list[Recording]:
    """A bag; missing frames end a recording and begin the next, `<name>-00`, `<name>-01`, ...

    Frames outside of the time that all signals cover are left out at both ends.

    Raises:
        BadInput: the bag is damaged, several topics may be meant (named), an encoding is not
            known, or a signal has gaps or does not cover the frames.
    """
    positive(max_gap_s=min(options.max_gap_s, 1e9))
    with opened(path) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        topic = _image_topic(path, types, options.topic)
        used = _signal_topics(path, types, options.signals)
        times, received = _frame_times(path, reader, topic)
        if not used and options.signals is None:
            logger.warning("%s: no topic says what the car does: frames alone", path)
        signals = _signals(path, reader, {name: types[name] for name in used})
    start, stop = _covered(path, times, signals, options.max_gap_s)
    steps = np.diff(times[start:stop])
    step = float(np.median(steps))
    edges = [start, *(start + 1 + np.flatnonzero(steps > MAX_STEP * step)).tolist(), stop]
    pieces = [(a, b) for a, b in pairwise(edges) if b - a >= MIN_FRAMES]
    if not pieces:
        raise BadInput(f"{path}: {topic} has no {MIN_FRAMES} frames without a gap; leave it out")
    left = len(times) - sum(b - a for a, b in pieces)
    if left or len(pieces) > 1:
        logger.warning(
            "%s: %s has %d gaps where frames are missing; made %d recordings of it, left out %d "
            "frames that no signal covers or in pieces shorter than %d",
            *(path, topic, len(edges) - 2, len(pieces), left, MIN_FRAMES),
        )
    recordings = []
    for number, (a, b) in enumerate(pieces):
        names, actions, track = _rows(path, signals, times[a:b], options.max_gap_s)
        recordings.append(
            Recording(
                id=f"{path.stem}-{number:02d}" if len(pieces) > 1 else path.stem,
                source=BagFrames(path, topic, a, received),
                fps=round(1 / step, 3),
                action_names=names,
                actions=actions,
                meta={"source": f"{path.name}, {topic}", "licence": options.licence},
                track=track,
            )
        )
    return recordings


def _image_topic(path: Path, types: dict[str, str], asked: str | None) -> str:
    found = sorted(topic for topic, kind in types.items() if kind in IMAGES)
    if asked is not None and asked in found:
        return asked
    if asked is not None:
        raise BadInput(
            f"{path}: has no image topic {asked!r}; there are {', '.join(found) or 'none'}"
        )
    if len(found) != 1:
        raise BadInput(
            f"{path}: {len(found)} image topics ({', '.join(found)}); choose one by --topic"
            if found
            else f"{path}: no topic of {' or '.join(IMAGES)}; topics there: {', '.join(types)}"
        )
    return found[0]


def _signal_topics(path: Path, types: dict[str, str], asked: str | None) -> list[str]:
    known = sorted(topic for topic, kind in types.items() if kind in QUANTITIES)
    used = known if asked is None else [name for name in asked.split(",") if name]
    for name in used:
        if name not in known:
            raise BadInput(
                f"{path}: --signals {name}: is no topic that is known; there are {', '.join(known)}"
            )
    columns: dict[str, list[str]] = {}
    for name in used:
        for quantity in QUANTITIES[types[name]]:
            columns.setdefault(quantity.name, []).append(name)
    for column, topics in columns.items():
        if len(topics) > 1:
            raise BadInput(
                f"{path}: topics {', '.join(topics)} all give {column}; choose by --signals "
                f"(say --signals {topics[0]})"
            )
    return used


def _frame_times(path: Path, reader: Any, topic: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of every frame, and nanoseconds at which it was received."""
    times, received = [], []
    for connection, at_ns, raw in _messages(path, reader, topic):
        with bag_errors_named(path):
            times.append(stamp_s(reader.deserialize(raw, connection.msgtype), at_ns))
        received.append(at_ns)
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(times) < 2 or len(back):
        where = f"its clock jumps back after message {back[0]}" if len(back) else "has no frames"
        raise BadInput(f"{path}: {topic}: {where}; cut the bag there, or leave it out")
    return np.array(times), np.array(received, np.int64)


def _signals(path: Path, reader: Any, types: dict[str, str]) -> list[Signal]:
    signals = []
    for topic, kind in types.items():
        times: list[float] = []
        values: list[list[float]] = []
        for connection, at_ns, raw in _messages(path, reader, topic):
            with bag_errors_named(path):
                message = reader.deserialize(raw, connection.msgtype)
                if kind == FIX and not is_fixed(message):
                    continue
                values.append([float(quantity.of(message)) for quantity in QUANTITIES[kind]])
                times.append(stamp_s(message, at_ns))
        if not times:
            logger.warning("%s: %s holds nothing and is left out", path, topic)
            continue
        signals += [
            Signal(quantity.name, np.array(times), np.array(column), quantity.kind)
            for quantity, column in zip(QUANTITIES[kind], zip(*values, strict=True), strict=True)
        ]
    return signals


def _covered(
    path: Path, times: np.ndarray, signals: Sequence[Signal], max_gap_s: float
) -> tuple[int, int]:
    """The frames from the last signal's begin to the first one's end."""
    slack = min(max_gap_s, 1e9) / 2
    since = max((s.times_s[0] for s in signals), default=-np.inf) - slack
    until = min((s.times_s[-1] for s in signals), default=np.inf) + slack
    start, stop = np.searchsorted(times, since), np.searchsorted(times, until, side="right")
    if stop - start < 2:
        late = max(signals, key=lambda s: s.times_s[0])
        raise BadInput(
            f"{path}: no frames while all signals are there: frames from {times[0]:.3f} to "
            f"{times[-1]:.3f} s, {late.name} from {late.times_s[0]:.3f} s; choose by --signals"
        )
    return int(start), int(stop)


def _rows(
    path: Path, signals: Sequence[Signal], times: Float[np.ndarray, " frame"], max_gap_s: float
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Names and rows of the actions, and the track."""
    remedy = "allow it by --max-gap-s, choose others by --signals, or cut the bag there"
    names, rows = at_frames(signals, times, max_gap_s, str(path), remedy)
    columns = dict(zip(names, rows.T, strict=True))
    track = None
    if TRACK[0] in columns:
        track = np.stack([columns.pop(name) for name in TRACK], axis=1)
    if {"speed_mps", "yaw_rate_rad_s"} <= columns.keys():
        curvature = curvature_per_m(columns["yaw_rate_rad_s"], columns["speed_mps"])
        columns["curvature_per_m"] = curvature
    actions = np.stack([*columns.values()], axis=1) if columns else np.zeros((len(times), 0))
    check_actions(path, tuple(columns), actions)
    return tuple(columns), actions, track


def _messages(path: Path, reader: Any, topic: str) -> Iterator[tuple[Any, int, bytes]]:
    """Of one topic; BadInput unless there are as many as the bag's own index counts."""
    connections = [c for c in reader.connections if c.topic == topic]
    found, counted = 0, sum(connection.msgcount for connection in connections)
    with bag_errors_named(path):
        for message in reader.messages(connections):
            found += 1
            yield message
    if found != counted:
        raise BadInput(
            f"{path}: {topic} holds {found} messages, its index counts {counted}; copy it again, "
            "or repair it by `rosbag reindex` or `mcap recover`"
        )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """rosbags' reader of a bag; BadInput where it cannot be read, or rosbags is not there."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise BadInput(
            f"{path}: reading it needs the package rosbags; pip install 'dashcast[ros]'"
        ) from error
    store = get_typestore(Stores.LATEST)
    for name, text in ACKERMANN_DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    with bag_errors_named(path):
        reader = AnyReader([path], default_typestore=store)
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


def bag_errors_named(path: Path) -> AbstractContextManager[None]:
    """BadInput for whatever rosbags raises."""
    repair = "copy it again, or repair it by `rosbag reindex` or `mcap recover`"
    return errors_named(path, "cannot be read as a ROS bag", repair)


FORMAT = RecordingFormat("ROS 1 and 2 bags and MCAP, by rosbags", find, RosOptions)
