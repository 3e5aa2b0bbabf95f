"""nuScenes: scenes of 20 s, one camera with its sweeps (12 Hz), poses, the CAN expansion.

Tables: https://github.com/nutonomy/nuscenes-devkit/blob/master/docs/schema_nuscenes.md
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock

import numpy as np

from drives.actions.signals import Signal, at_frames
from drives.importers.recording import Candidate, Recording, RecordingFormat
from drives.importers.recordings.json_lists import Entry, read_entries
from drives.importers.recordings.posed.images import (
    MICROSECONDS,
    SIGNAL_GAP_S,
    Poses,
    inside,
    licence_of,
    posed_recordings,
)
from drives.importers.recordings.steering.sessions import RowOptions
from training.disk.records import read_json
from training.errors import BadInput

logger = logging.getLogger(__name__)

TABLES = "v1.0-*/sample_data.json"


@dataclass(frozen=True)
class NuScenesOptions(RowOptions):
    """Settings of nuScenes.

    Attributes:
        camera: channel of the camera, as CAM_FRONT or CAM_BACK.
        version: folder of the tables, as v1.0-mini; needed where there are several.
    """

    camera: str = "CAM_FRONT"
    version: str | None = None


class _Tables:
    """What the tables say of one camera; read once, when the first scene is."""

    def __init__(self, root: Path, version: str, camera: str) -> None:
        self.root, self.folder, self.camera = root, root / version, camera
        self.lock = Lock()

    @cached_property
    def scene_of_sample(self) -> dict[str, str]:
        samples = read_entries(self.folder / "sample.json", ("token", "scene_token"))
        return {sample["token"]: sample["scene_token"] for sample in samples}

    @cached_property
    def images(self) -> dict[str, list[Entry]]:
        """Images of each scene, by time."""
        sensors = read_entries(self.folder / "sensor.json", ("token", "channel"))
        tokens = {s["token"] for s in sensors if s["channel"] == self.camera}
        if not tokens:
            there = sorted({s["channel"] for s in sensors if s["channel"].startswith("CAM")})
            raise BadInput(
                f"{self.folder}: no camera {self.camera!r}; give --camera one of: "
                f"{', '.join(there)}"
            )
        placed = read_entries(self.folder / "calibrated_sensor.json", ("token", "sensor_token"))
        own = {entry["token"] for entry in placed if entry["sensor_token"] in tokens}
        keys = ("sample_token", "ego_pose_token", "calibrated_sensor_token", "filename")
        # A gigabyte of JSON for the whole set: entries of other sensors are dropped at once.
        data = read_entries(
            self.folder / "sample_data.json",
            (*keys, "timestamp"),
            lambda entry: entry["calibrated_sensor_token"] in own,
        )
        scenes: dict[str, list[Entry]] = {}
        for entry in sorted(data, key=lambda entry: entry["timestamp"]):
            scene = self.scene_of_sample.get(entry["sample_token"])
            if scene is not None:
                scenes.setdefault(scene, []).append(entry)
        return scenes

    @cached_property
    def poses(self) -> dict[str, Entry]:
        needed = {e["ego_pose_token"] for entries in self.images.values() for e in entries}
        keys = ("token", "timestamp", "translation", "rotation")
        file = self.folder / "ego_pose.json"
        found = read_entries(file, keys, lambda entry: entry["token"] in needed)
        return {entry["token"]: entry for entry in found}

    def poses_of(self, images: Sequence[Entry]) -> Poses:
        try:
            own = [self.poses[image["ego_pose_token"]] for image in images]
            return Poses(
                np.array([pose["timestamp"] for pose in own], np.float64) * MICROSECONDS,
                np.array([pose["translation"] for pose in own], np.float64).reshape(-1, 3),
                np.array([pose["rotation"] for pose in own], np.float64).reshape(-1, 4),
            )
        except (KeyError, ValueError, TypeError) as error:
            reason = f"{self.folder / 'ego_pose.json'}: the pose of an image is missing or no pose"
            raise BadInput(f"{reason} ({error}); copy the table again") from error

    def read(self, scene: Entry, options: NuScenesOptions) -> list[Recording]:
        with self.lock:  # scenes are read by several threads
            images = self.images.get(scene["token"], [])
            _ = self.poses
        where = Path(f"{self.folder}: {scene['name']}")
        if not images:
            raise BadInput(f"{where}: has no images of {self.camera}; leave it out")
        times_s = np.array([e["timestamp"] for e in images], np.float64) * MICROSECONDS
        files = [inside(self.root, e["filename"], self.folder) for e in images]
        signals = self.poses_of(images).signals(where)
        signals += self._can_signals(scene["name"], times_s)
        meta = {
            "source": f"nuScenes {self.folder.name}, {scene['name']}, {self.camera}",
            "licence": licence_of(options),
        }
        text = str(scene.get("description") or "").strip()
        return posed_recordings(
            scene["name"], files, times_s, signals, meta, where, options.on_missing, text
        )

    def _can_signals(self, scene: str, times_s: np.ndarray) -> list[Signal]:
        """The steering wheel, where the CAN expansion has this scene (21 scenes have none)."""
        file = self.root / "can_bus" / f"{scene}_steeranglefeedback.json"
        if not file.is_file():
            return []
        try:
            entries = [(e["utime"], e["value"]) for e in read_json(file)]
            values = np.array(entries, np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{file}: each entry needs utime and value ({error})") from error
        values = values[np.append(True, np.diff(values[:, 0]) > 0)]
        signal = Signal("steering_wheel_rad", values[:, 0] * MICROSECONDS, values[:, 1])
        try:
            at_frames([signal], times_s, SIGNAL_GAP_S, str(file))
        except BadInput as error:
            logger.warning("%s; the scene has no steering_wheel_rad", error)
            return []
        return [signal]


def find(root: Path, options: NuScenesOptions) -> list[Candidate]:
    """The scenes; BadInput where there is no `v1.0-*/sample_data.json`."""
    versions = [path.parent.name for path in sorted(root.glob(TABLES))]
    if not versions:
        raise BadInput(f"{root}: no {TABLES}; give the folder that holds it, samples/ and sweeps/")
    chosen = [v for v in versions if options.version in (None, v)]
    if len(chosen) != 1:
        reason = f"{root}: give --version one of: {', '.join(versions)}"
        return [Candidate(str(root), partial(_refuse, reason))]
    tables = _Tables(root, chosen[0], options.camera)
    try:
        scenes = read_entries(tables.folder / "scene.json", ("token", "name"))
    except BadInput as error:
        return [Candidate(str(root), partial(_refuse, str(error)))]
    return [
        Candidate(f"{tables.folder}: {scene['name']}", partial(tables.read, scene, options))
        for scene in sorted(scenes, key=lambda scene: str(scene["name"]))
    ]


def _refuse(reason: str) -> list[Recording]:
    raise BadInput(reason)


FORMAT = RecordingFormat("nuScenes: one camera, poses, CAN expansion", find, NuScenesOptions)
