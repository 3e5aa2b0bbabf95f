"""Rules: pieces of drives for train, val and test, so that val and test measure generalisation.

By time, with a gap, because consecutive frames are nearly equal. By whole routes. By geofence:
roads that no train drive took ("unseen") beside other runs over roads that some did ("seen").
Together they separate generalisation from memory, as in GAIA-1 (Hu et al. 2023, arXiv 2309.17080,
section 4).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from drives.drive import Drive
from drives.splits.base import SEEN, SPLITS, UNSEEN, default_split
from drives.splits.pieces import Piece
from drives.splits.tracks import Fence, Track, metres, track_of
from training.errors import BadInput
from training.ranges import at_least

Pieces = dict[str, list[Piece]]
SHORTEST = 2  # frames; a single one has no future


def by_time(drives: Sequence[Drive], shares: Sequence[float], gap_s: float) -> Pieces:
    """Train before val before test, `gap_s` seconds apart.

    If every drive has a `time` in its drive.json (ISO 8601, of its first frame), all are on one
    clock and the last recordings are test. Without any, each drive is cut by itself.

    Raises:
        BadInput: shares that are none, some drives with a time and others without, or a gap that
            leaves a split nothing.
    """
    _check_shares(shares)
    at_least(0, **{"--gap-s": gap_s})
    starts = [_time_of(drive) for drive in drives]
    if None in starts and any(start is not None for start in starts):
        lacking = drives[starts.index(None)]
        raise BadInput(f"{lacking.path}/drive.json: has no time, but others do; give all one")
    times = [
        np.arange(len(drive.actions)) / drive.fps + (start or 0.0)
        for drive, start in zip(drives, starts, strict=True)
    ]
    if None in starts:
        cuts = [_cuts(each, shares) for each in times]
    else:
        cuts = [_cuts(np.sort(np.concatenate(times)), shares)] * len(drives)
    found = {
        drive.id: _pieces(_by_cuts(each, at, gap_s))
        for drive, each, at in zip(drives, times, cuts, strict=True)
    }
    _check_splits(found, shares, f"--gap-s {gap_s:g}: leaves no frame to {{}}; give a smaller one")
    return found


def by_route(drives: Sequence[Drive], val: Sequence[str] = (), test: Sequence[str] = ()) -> Pieces:
    """All drives of a route (`route` in drive.json) in one split.

    Args:
        val, test: routes of these splits; all others are train. Without both, a hash of the route's
            name decides.

    Raises:
        BadInput: a drive without a route, or a route that no drive took.
    """
    routes = {}
    for drive in drives:
        route = drive.meta.get("route")
        if not isinstance(route, str) or not route:
            raise BadInput(f"{drive.path}/drive.json: route is {route!r}; give the route's name")
        routes[drive.id] = route
    names = sorted(set(routes.values()))
    for name in (*val, *test):
        if name not in names:
            raise BadInput(f"route {name!r}: no drive took it; there are {', '.join(names)}")
    if set(val) & set(test):
        raise BadInput(f"route {min(set(val) & set(test))!r}: is in val and in test; choose one")
    splits = {name: default_split(name, i, len(names)) for i, name in enumerate(names)}
    if val or test:
        splits = {n: "val" if n in val else "test" if n in test else "train" for n in names}
    return {d.id: [Piece(splits[routes[d.id]], 0, len(d.actions))] for d in drives}


def by_geofence(
    drives: Sequence[Drive],
    fences: Sequence[Fence],
    margin_m: float,
    seen: Mapping[str, float] | None = None,
) -> Pieces:
    """Frames inside a fence to its split, on "unseen" roads; the others to train.

    Args:
        margin_m: frames outside of a fence but this close to it are unused. A held-out frame is on
            a seen road if a train frame is this close.
        seen: share of the drives outside of the fences to hold out whole for a split; their frames
            on seen roads are kept.

    Raises:
        BadInput: a drive without a track, or a split that is left without a frame.
    """
    at_least(0, **{"--margin-m": margin_m})
    tracks = {drive.id: track_of(drive) for drive in drives}
    held_out = _held_out(drives, seen or {})
    labels = {name: _fenced(track, fences, margin_m) for name, track in tracks.items()}
    train = [tracks[d.id][labels[d.id] == "train"] for d in drives if d.id not in held_out]
    roads = _Roads(np.concatenate(train), margin_m)
    found: Pieces = {}
    for drive in drives:
        label = labels[drive.id]
        inside = np.isin(label, SPLITS[1:])
        label[inside] = np.char.add(label[inside], f"_{UNSEEN}")
        if split := held_out.get(drive.id):
            outside = label == "train"
            label[outside] = np.where(roads.near(tracks[drive.id][outside]), f"{split}_{SEEN}", "")
        found[drive.id] = _pieces(label)
    kinds = {piece.split for pieces in found.values() for piece in pieces}
    for split in {"train", *(fence.split for fence in fences), *held_out.values()} - kinds:
        raise BadInput(
            f"the fences leave no frame to {split}; draw them over roads that were driven"
        )
    return found


def _fenced(track: Track, fences: Sequence[Fence], margin_m: float) -> np.ndarray:
    """The split of every frame; "" within the margin."""
    label = np.full(len(track), "train", dtype="<U16")
    for fence in fences:
        label[fence.metres_from(track) <= margin_m] = ""
    for fence in fences:
        label[fence.holds(track)] = fence.split
    return label


class _Roads:
    """Places of train drives, in squares of `reach_m`."""

    def __init__(self, track: Track, reach_m: float) -> None:
        self.reach_m = max(reach_m, 1.0)
        self.origin = track[:1] if len(track) else np.zeros((1, 2))
        self.cells: dict[tuple[int, int], list[np.ndarray]] = {}
        for place in self._places(track):
            self.cells.setdefault(self._cell(place), []).append(place)

    def near(self, track: Track) -> Bool[np.ndarray, " frame"]:
        """Whether a train frame is within reach of each frame."""
        return np.array([self._is_near(place) for place in self._places(track)], bool)

    def _places(self, track: Track) -> np.ndarray:
        return metres(track - self.origin, np.broadcast_to(self.origin, track.shape))

    def _cell(self, place: np.ndarray) -> tuple[int, int]:
        return int(place[0] // self.reach_m), int(place[1] // self.reach_m)

    def _is_near(self, place: np.ndarray) -> bool:
        row, column = self._cell(place)
        return any(
            np.linalg.norm(place - other) <= self.reach_m
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for other in self.cells.get((row + i, column + j), ())
        )


def _held_out(drives: Sequence[Drive], seen: Mapping[str, float]) -> dict[str, str]:
    """Drives held out whole, in the order of a hash of their ids."""
    if sum(seen.values()) >= 1 or min(seen.values(), default=0) < 0:
        raise BadInput(f"--seen {dict(seen)}: give shares from 0 on that sum to less than 1")
    names = sorted((d.id for d in drives), key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    found: dict[str, str] = {}
    for split, share in seen.items():
        count = min(max(1, round(share * len(names))), len(names) - len(found) - 1) if share else 0
        found |= dict.fromkeys(names[len(found) : len(found) + count], split)
    return found


def _time_of(drive: Drive) -> float | None:
    """Seconds since 1970 of the first frame."""
    value = drive.meta.get("time")
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{drive.path}/drive.json: time is {value!r}; write it as 2026-05-01T12:30:00+00:00"
        ) from error


def _check_shares(shares: Sequence[float]) -> None:
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise BadInput(f"--shares {list(shares)}: give three (train val test) that sum to 1")


def _cuts(times: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Times at which val and test begin."""
    edges = np.round(np.cumsum(shares)[:-1] * len(times)).astype(int)
    return [float(times[edge]) if edge < len(times) else np.inf for edge in edges]


def _by_cuts(times: np.ndarray, cuts: Sequence[float], gap_s: float) -> np.ndarray:
    label = np.array(SPLITS)[np.searchsorted(cuts, times, side="right")]
    for cut in cuts:  # the earlier split gives up its end
        label = np.where((times < cut) & (times >= cut - gap_s), "", label)
    return label


def _pieces(labels: np.ndarray) -> list[Piece]:
    """Runs of frames with one label: SPLIT, SPLIT_ROADS, or "" for none."""
    edges = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
    runs = [(str(labels[a]), int(a), int(b)) for a, b in pairwise(edges)]
    return [
        Piece(label.partition("_")[0], start, stop, label.partition("_")[2])
        for label, start, stop in runs
        if label and stop - start >= SHORTEST
    ]


def _check_splits(found: Pieces, shares: Sequence[float], message: str) -> None:
    counts = Counter(piece.split for pieces in found.values() for piece in pieces)
    for split, share in zip(SPLITS, shares, strict=True):
        if share and not counts[split]:
            raise BadInput(message.format(split))
