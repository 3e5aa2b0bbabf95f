"""nuPlan: logs as SQLite databases, their camera images in `sensor_blobs`.

Tables: https://github.com/motional/nuplan-devkit/blob/master/docs/nuplan_schema.md
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from drives.importers.recording import Candidate, Recording, RecordingFormat
from drives.importers.recordings.posed.images import (
    MICROSECONDS,
    Poses,
    inside,
    licence_of,
    posed_recordings,
)
from drives.importers.recordings.steering.sessions import MIN_FRAMES, RowOptions
from training.errors import BadInput

BLOBS = "sensor_blobs"
PATTERNS = ("*.db", "*/*.db", "*/*/*.db", "*/*/*/*.db")  # from splits/mini up to the whole set
MARGIN_S = 0.5  # of poses before and after a scene's images
FILE_HEAD = b"SQLite format 3\0"


@dataclass(frozen=True)
class NuPlanOptions(RowOptions):
    """Settings of nuPlan.

    Attributes:
        camera: channel of the camera, as CAM_F0 or CAM_L0.
        blobs: folder of the images; None: `sensor_blobs` in or above the folder of the databases.
    """

    camera: str = "CAM_F0"
    blobs: Path | None = None


@dataclass(frozen=True)
class _Log:
    file: Path
    options: NuPlanOptions

    def read(self) -> list[Recording]:
        """A recording for each scene; images of no scene are left out."""
        blobs = self._blobs()
        address = f"file:{quote(str(self.file.resolve()))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as database:
                scenes = self._scenes(database, blobs)
        except BadInput:
            raise
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:  # text for numbers
            raise BadInput(f"{self.file}: cannot be read ({error}); copy it again") from error
        if not scenes:
            raise BadInput(
                f"{self.file}: no scene has {MIN_FRAMES} images of {self.options.camera}"
            )
        return scenes

    def _blobs(self) -> Path:
        if self.options.blobs is not None:
            return self.options.blobs
        found = (folder / BLOBS for folder in self.file.resolve().parents[:5])
        blobs = next((folder for folder in found if folder.is_dir()), None)
        if blobs is None:
            raise BadInput(f"{self.file}: no {BLOBS}/ above it; download images, or give --blobs")
        return blobs

    def _scenes(self, database: sqlite3.Connection, blobs: Path) -> list[Recording]:
        images = self._images(database)
        clouds = _rows(
            database,
            "SELECT p.timestamp, hex(p.scene_token), s.name FROM lidar_pc p"
            " JOIN scene s ON p.scene_token = s.token ORDER BY p.timestamp",
        )
        if not clouds:
            raise BadInput(f"{self.file}: no scene has a point cloud; copy it again")
        times = np.array([row[0] for row in images], np.float64) * MICROSECONDS
        cloud_times = np.array([row[0] for row in clouds], np.float64) * MICROSECONDS
        # An image belongs to the scene of the point cloud nearest in time, as in the devkit.
        after = np.clip(np.searchsorted(cloud_times, times), 1, max(len(clouds) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(clouds) - 1)
        is_before = times - cloud_times[before] < cloud_times[after] - times
        nearest = np.where(is_before, before, after)
        found = []
        tokens = [clouds[i][1] for i in nearest]
        names = dict((clouds[i][1], clouds[i][2]) for i in nearest)
        for token, name in names.items():
            own = [i for i, of in enumerate(tokens) if of == token]
            if len(own) < MIN_FRAMES:
                continue
            files = [inside(blobs, str(images[i][1]), self.file) for i in own]
            found += self._recordings(database, str(name or token.lower()), files, times[own])
        return found

    def _images(self, database: sqlite3.Connection) -> Sequence[Any]:
        cameras = _rows(database, "SELECT DISTINCT channel FROM camera")
        there = sorted(str(row[0]) for row in cameras)
        if self.options.camera not in there:
            raise BadInput(
                f"{self.file}: no camera {self.options.camera!r}; give --camera one of: "
                f"{', '.join(there) or 'none'}"
            )
        images = _rows(
            database,
            "SELECT i.timestamp, i.filename_jpg FROM image i JOIN camera c"
            " ON i.camera_token = c.token WHERE c.channel = ? ORDER BY i.timestamp",
            self.options.camera,
        )
        if not images:
            raise BadInput(f"{self.file}: has no images of {self.options.camera}; leave it out")
        return images

    def _recordings(
        self, database: sqlite3.Connection, name: str, files: list[Path], times_s: np.ndarray
    ) -> list[Recording]:
        log = self.file.stem
        first, last = times_s[0] - MARGIN_S, times_s[-1] + MARGIN_S
        poses = np.array(
            _rows(
                database,
                "SELECT timestamp, x, y, z, qw, qx, qy, qz FROM ego_pose"
                " WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp",
                *(int(first / MICROSECONDS), int(last / MICROSECONDS)),
            ),
            np.float64,
        ).reshape(-1, 8)
        poses = poses[np.append(True, np.diff(poses[:, 0]) > 0)[: len(poses)]]
        where = Path(f"{self.file}: {name}")
        if len(poses) < 2:
            raise BadInput(f"{where}: has no poses at the time of its images; copy the file again")
        moved = Poses(poses[:, 0] * MICROSECONDS, poses[:, 1:4], poses[:, 4:])
        meta = {
            "source": f"nuPlan {log}, {name}, {self.options.camera}",
            "licence": licence_of(self.options),
        }
        own = name if name.startswith(log) else f"{log}-{name}"
        missing = self.options.on_missing
        return posed_recordings(own, files, times_s, moved.signals(where), meta, where, missing)


def _rows(database: sqlite3.Connection, query: str, *values: Any) -> list[Any]:
    return database.execute(query, values).fetchall()


def find(root: Path, options: NuPlanOptions) -> list[Candidate]:
    """The databases below a folder, or one of them; BadInput where there is none."""
    files = [root] if root.suffix == ".db" else []
    for pattern in PATTERNS if not files else ():
        files = files or sorted(path for path in root.glob(pattern) if _is_database(path))
    if not files or not _is_database(files[0]):
        raise BadInput(f"{root}: no SQLite file *.db up to four folders below; give its folder")
    return [Candidate(str(file), _Log(file, options).read) for file in files]


def _is_database(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(FILE_HEAD)) == FILE_HEAD
    except OSError:
        return False


FORMAT = RecordingFormat("nuPlan: SQLite logs and sensor_blobs, one camera", find, NuPlanOptions)
