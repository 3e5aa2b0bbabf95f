"""comma2k19: 33 hours of a commute in one-minute segments (MIT, github.com/commaai/comma2k19).

    <route>/<NN>/video.hevc                            the rate is not in the file
    <route>/<NN>/global_pose/frame_times               [frame] seconds since the device booted
                             frame_positions           [frame 3] metres, ECEF
                             frame_orientations        [frame 4] w x y z
    <route>/<NN>/processed_log/CAN/speed/{t,value}           m/s, about 83 Hz
                                   steering_angle/{t,value}  degrees of the steering wheel

Arrays are .npy files without an extension. A route is named `<device>|<start>`. A chunk is a folder
of routes or a zip of one; a zip is read where it lies.

Upstream calls an orientation the rotation from ECEF to the car. In the published files it is the
rotation from the car (forward, right, down) to ECEF: its forward axis lies along the velocities.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from drives.actions.derived import (
    curvature_per_m,
    ecef_to_geodetic,
    road_wheel_rad,
    steering_from_wheel,
    yaw_rate_from_orientations,
)
from drives.actions.signals import Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.importers.recordings.zipped import Place, ZippedVideo, place_name, places, read_array
from drives.video import num_frames, read_frames
from training.errors import BadInput

MARK = "global_pose/frame_times"
VIDEO = "video.hevc"
DEPTH = 3  # folders above a segment: data set, chunk, route
FORWARD_RIGHT_DOWN = (0.0, 0.0, -1.0)  # where up is
MAX_STEP = 1.5  # median steps between two frames; beyond, a frame is missing


@dataclass(frozen=True)
class Comma2k19Options(ImportOptions):
    """Settings of comma2k19.

    Attributes:
        licence: of the recordings; noted in every drive.json.
        lock_deg: steering wheel at full lock, in degrees; `steering` is 1 there.
        ratio: of the steering wheel's angle to the front wheels', for `road_wheel_rad`.
        join: segments of a route that follow each other without a gap become one recording.
    """

    licence: str = "MIT"
    lock_deg: float = 540.0
    ratio: float = 15.3
    join: bool = False


class Minute(NamedTuple):
    """The arrays of one minute; clocks are of one route."""

    where: str
    video: Path | ZippedVideo
    times_s: Float[np.ndarray, " frame"]
    positions_m: Float[np.ndarray, "frame 3"]
    orientations: Float[np.ndarray, "frame 4"]
    can: dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class JoinedVideos:
    """Videos that follow each other, with their numbers of frames."""

    parts: tuple[tuple[Path | ZippedVideo, int], ...]

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield RGB frames `start <= i < stop`; BadInput where one cannot be read."""
        first = 0
        for source, count in self.parts:
            begin, end = max(start - first, 0), min(stop - first, count)
            if begin < end:
                opened = (
                    source.read if isinstance(source, ZippedVideo) else partial(read_frames, source)
                )
                yield from opened(begin, end)
            first += count


def find(root: Path, options: Comma2k19Options) -> list[Candidate]:
    """Every segment up to three folders below `root`, or in a zip there; by route with `join`.

    Raises:
        BadInput: there are none.
    """
    found = places(root, MARK, DEPTH)
    if not found:
        raise BadInput(
            f"{root}: holds no segment of comma2k19 ({MARK}); give a chunk (folder or zip), a "
            "route or a segment"
        )
    groups: dict[str, list[Place]] = {}
    for place in found:
        route, number = _route_of(place)
        groups.setdefault(route if options.join else f"{route}/{number}", []).append(place)
    return [
        Candidate(place_name(group[0]), partial(read_recordings, tuple(group), options))
        for group in groups.values()
    ]


def read_recordings(group: Sequence[Place], options: Comma2k19Options) -> list[Recording]:
    """The segments of a group; those without a gap between them as one recording.

    Raises:
        BadInput: an array is missing, damaged or of another shape; a frame is missing; the video
            has another number of frames; a signal does not cover the frames.
    """
    segments = [read_segment(place) for place in sorted(group, key=_number_of)]
    runs, first = [], 0
    for index, (a, b) in enumerate(pairwise(segments), 1):
        step = float(np.median(np.diff(a.times_s)))
        if not 0 < b.times_s[0] - a.times_s[-1] < MAX_STEP * step:
            runs.append(slice(first, index))
            first = index
    runs.append(slice(first, len(segments)))
    ordered = sorted(group, key=_number_of)
    return [_recording(ordered[run], segments[run], options) for run in runs]


def read_segment(place: Place) -> Minute:
    """All arrays of a segment, checked; BadInput as in `read_recordings`."""
    where = place_name(place)
    pose = place / "global_pose"
    times = read_array(pose / "frame_times", ())
    count = len(times)
    if count < 2:
        raise BadInput(f"{where}: has {count} frames; leave the segment out")
    shapes = {"frame_positions": (3,), "frame_orientations": (4,)}
    poses = {name: read_array(pose / name, shape, count) for name, shape in shapes.items()}
    steps = np.diff(times)
    far = np.flatnonzero(~((steps > 0) & (steps < MAX_STEP * np.median(steps))))
    if len(far):
        raise BadInput(
            f"{where}: frame_times go from {times[far[0]]:.3f} to {times[far[0] + 1]:.3f} s after "
            f"frame {far[0]}; frames are missing there: leave the segment out (--on-bad=skip)"
        )
    video: Path | ZippedVideo
    video = place / VIDEO if isinstance(place, Path) else ZippedVideo.of(place / VIDEO)
    shown = num_frames(video) if isinstance(video, Path) else video.num_frames()
    if shown != count:
        raise BadInput(
            f"{where}: {VIDEO} has {shown} frames, frame_times {count}; copy the segment again"
        )
    log = place / "processed_log" / "CAN"
    can = {
        name: (read_array(log / name / "t", ()), read_array(log / name / "value", ()))
        for name in ("speed", "steering_angle")
    }
    positions, orientations = poses["frame_positions"], poses["frame_orientations"]
    return Minute(where, video, times, positions, orientations, can)


def _recording(
    places: Sequence[Place], segments: Sequence[Minute], options: Comma2k19Options
) -> Recording:
    where, times = segments[0].where, np.concatenate([s.times_s for s in segments])
    can = {
        name: Signal(
            name,
            np.concatenate([s.can[name][0] for s in segments]),
            np.concatenate([s.can[name][1] for s in segments]),
        )
        for name in segments[0].can
    }
    orientations = np.concatenate([s.orientations for s in segments])
    yaw_rate = yaw_rate_from_orientations(times, orientations, FORWARD_RIGHT_DOWN, where)
    signals = [Signal("speed_mps", can["speed"].times_s, can["speed"].values), yaw_rate]
    _, rows = at_frames([*signals, can["steering_angle"]], times, where=where)
    speed, turn, wheel_deg = rows.T
    names = ("speed_mps", "yaw_rate_rad_s", "curvature_per_m", "road_wheel_rad", "steering")
    with named(where):
        columns = [
            *(speed, turn, curvature_per_m(turn, speed), road_wheel_rad(wheel_deg, options.ratio)),
            steering_from_wheel(wheel_deg, options.lock_deg),
        ]
    actions = np.stack(columns, axis=1)
    check_actions(Path(where), names, actions)
    route, number = _route_of(places[0])
    counts = [len(segment.times_s) for segment in segments]
    alone = segments[0].video
    joined = JoinedVideos(tuple(zip((s.video for s in segments), counts, strict=True)))
    place = ecef_to_geodetic(np.concatenate([s.positions_m for s in segments]))
    last = f"-{_route_of(places[-1])[1]}" if len(places) > 1 else ""
    return Recording(
        id=re.sub(r"[^\w-]+", "_", f"{route}-{number}{last}"),
        source=alone if len(segments) == 1 else joined,
        fps=round(float(1 / np.median(np.diff(times))), 2),
        action_names=names,
        actions=actions,
        meta={"source": f"comma2k19, {route}/{number}{last}", "licence": options.licence},
        track=place[:, :2].round(7),
    )


@contextmanager
def named(where: str) -> Iterator[None]:
    """Puts the segment before a message that does not know it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def _route_of(place: Place) -> tuple[str, str]:
    """Names of the route and of the segment."""
    if isinstance(place, Path):
        full = place.resolve()
        return full.parent.name, full.name
    parts = place.at.strip("/").split("/")
    return (parts[-2] if len(parts) > 1 else Path(str(place.root.filename)).stem), parts[-1]


def _number_of(place: Place) -> tuple[int, str]:
    name = _route_of(place)[1]
    return (int(name) if name.isdecimal() else 0), name


FORMAT = RecordingFormat("comma2k19: HEVC, CAN and global poses", find, Comma2k19Options)
