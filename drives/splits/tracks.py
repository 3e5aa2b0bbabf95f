"""Tracks of drives and areas on the map: latitude and longitude, polygons, distances in metres.

A track is in `drive.json`: `"track": {"lat_deg": [...], "lon_deg": [...]}`, one fix per frame, or
with `"frame": [...]` fixes of some frames with straight lines between. Or it is the columns
`lat_deg` and `lon_deg` of the actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from drives.drive import Drive
from drives.splits.base import SPLITS
from training.disk.judging import judged
from training.disk.records import read_json
from training.errors import BadInput

METRES_PER_DEG = 111_195.0  # of latitude, on a sphere of 6371 km
COLUMNS = ("lat_deg", "lon_deg")

Track = Float[np.ndarray, "frame 2"]
Ring = Float[np.ndarray, "corner 2"]


@dataclass(frozen=True)
class _Fixes:
    lat_deg: tuple[float, ...]
    lon_deg: tuple[float, ...]
    frame: tuple[int, ...] | None = None


def track_of(drive: Drive) -> Track:
    """Latitude and longitude of every frame, in degrees.

    Raises:
        BadInput: the drive has no track, or an impossible one.
    """
    where = f"{drive.path / 'drive.json'}: track"
    count = len(drive.actions)
    if "track" in drive.meta:
        fixes = judged(_Fixes, drive.meta["track"], where)
        frames = np.arange(count) if fixes.frame is None else np.array(fixes.frame)
        lat, lon = np.array(fixes.lat_deg), np.array(fixes.lon_deg)
        if not len(frames) == len(lat) == len(lon) or not len(frames):
            raise BadInput(
                f"{where}: {len(lat)} latitudes and {len(lon)} longitudes for {len(frames)} "
                "frames; give one of each per frame, or name their frames"
            )
        if (np.diff(frames) <= 0).any() or frames[0] < 0 or frames[-1] >= count:
            raise BadInput(f"{where}: frame: give ascending numbers below {count}")
        lat, lon = (np.interp(np.arange(count), frames, values) for values in (lat, lon))
    elif set(COLUMNS) <= set(drive.action_names):
        lat, lon = drive.select_actions(COLUMNS).T.astype(np.float64)
    else:
        raise BadInput(f"{where}: missing; a geofence needs lat_deg and lon_deg (docs/leakage.md)")
    if np.abs(lat).max() > 90 or np.abs(lon).max() > 180:
        raise BadInput(f"{where}: latitudes are -90 to 90 degrees, longitudes -180 to 180")
    return np.stack([lat, lon], axis=1)


@dataclass(frozen=True)
class Fence:
    """An area that belongs to a split.

    Attributes:
        rings: corners (latitude, longitude); a point in an even number of rings is outside.
    """

    split: str
    rings: tuple[Ring, ...]

    def holds(self, track: Track) -> Bool[np.ndarray, " frame"]:
        """Whether each point is inside (even-odd rule)."""
        inside = np.zeros(len(track), bool)
        for ring in self.rings:
            for (lat1, lon1), (lat2, lon2) in pairwise(ring):
                between = (lat1 > track[:, 0]) != (lat2 > track[:, 0])
                if lat1 != lat2:
                    share = (track[:, 0] - lat1) / (lat2 - lat1)
                    inside ^= between & (track[:, 1] < lon1 + share * (lon2 - lon1))
        return inside

    def metres_from(self, track: Track) -> Float[np.ndarray, " frame"]:
        """Distance of each point to the border."""
        least = np.full(len(track), np.inf)
        for ring in self.rings:
            for start, end in pairwise(ring):
                a, b = metres(start - track, track), metres(end - track, track)
                along = b - a
                length = np.maximum((along**2).sum(1), 1e-12)
                share = np.clip(-(a * along).sum(1) / length, 0, 1)
                least = np.minimum(least, np.linalg.norm(a + share[:, None] * along, axis=1))
        return least


def metres(degrees: Float[np.ndarray, "n 2"], at: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """North and east of small differences in latitude and longitude."""
    scale = np.stack([np.ones(len(at)), np.cos(np.radians(at[:, 0]))], axis=1)
    return degrees * scale * METRES_PER_DEG


def read_fences(path: Path) -> list[Fence]:
    """Polygons of a GeoJSON file (RFC 7946); the property `split` of each names its split.

    Raises:
        BadInput: another file, another geometry, or no such property.
    """
    content = read_json(path)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not features:
        raise BadInput(f"{path}: holds no features; give a GeoJSON FeatureCollection of polygons")
    return [_fence(feature, f"{path}: feature {i}") for i, feature in enumerate(features)]


def _fence(feature: Any, where: str) -> Fence:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    split = (properties or {}).get("split") if isinstance(properties, dict | None) else None
    if split not in SPLITS[1:]:
        raise BadInput(f'{where}: properties.split is {split!r}; give "val" or "test"')
    geometry = feature.get("geometry") or {}
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise BadInput(f"{where}: geometry is no Polygon and no MultiPolygon; draw the area's edge")
    try:
        given = geometry["coordinates"]
        rings = given if kind == "Polygon" else [ring for polygon in given for ring in polygon]
        return Fence(split, tuple(_ring(ring) for ring in rings))
    except (LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: coordinates are [[[lon, lat], ...]]; correct them") from error


def _ring(points: Sequence[Sequence[float]]) -> Ring:
    ring = np.array([[point[1], point[0]] for point in points], np.float64)
    inside = len(ring) > 3 and np.isfinite(ring).all() and (np.abs(ring) <= [90, 180]).all()
    if not inside or (ring[0] != ring[-1]).any() or np.ptp(ring[:, 1]) > 180:
        raise ValueError("no ring")
    return ring
