"""`meta/info.json` of a LeRobotDataset: version, rate, features, and where the files lie."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass as judged_dataclass

from drives.importers.recordings.lerobot.places import Place
from training.disk.records import read_json
from training.errors import BadInput

INFO = "meta/info.json"
# What LeRobot adds to every row by itself.
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
VISUAL = ("video", "image")
VERSIONS = ("v2.0", "v2.1", "v3.0")


@judged_dataclass(frozen=True)
class Feature:
    """One column or camera.

    Attributes:
        dtype: of the numbers, or "string", "image", "video".
        shape: of one frame's value.
        names: one per number, or a mapping to them ({"axes": [...]}); None: unnamed.
        info: of a camera: codec, rate, whether it shows depth.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] | None = None

    @property
    def is_depth(self) -> bool:
        info = self.info or {}
        return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))

    def number_names(self, key: str) -> list[str]:
        """A name for each number; unnamed ones are called by the feature's key."""
        names = self.names
        if isinstance(names, dict):
            names = next(iter(names.values()), None)
        count, stem = self.shape[0] if self.shape else 1, key.rpartition(".")[2]
        if isinstance(names, Sequence) and len(names) == count:
            return [str(name) for name in names]
        return [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]


@judged_dataclass(frozen=True)
class Info:
    """What `meta/info.json` says.

    Attributes:
        data_path, video_path: templates of file names below the dataset's folder.
        splits: name -> "first:stop" of episodes.
    """

    codebase_version: str
    fps: float
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    chunks_size: int = 1000
    robot_type: str | None = None

    @property
    def is_v2(self) -> bool:
        return self.codebase_version.startswith("v2")

    @property
    def cameras(self) -> list[str]:
        """Keys of the cameras that show colours."""
        return [k for k, f in self.features.items() if f.dtype in VISUAL and not f.is_depth]

    def camera(self, name: str | None, where: str) -> str:
        """The key of the camera to read.

        Raises:
            BadInput: there are several and none is named, or none of that name.
        """
        if name is None and len(self.cameras) == 1:
            return self.cameras[0]
        found = [key for key in self.cameras if name in (key, key.rpartition(".")[2])]
        if len(found) == 1:
            return found[0]
        there = ", ".join(key.rpartition(".")[2] for key in self.cameras) or "none"
        asked = "has several cameras" if name is None else f"has no camera {name!r}"
        raise BadInput(f"{where}: {asked}; give --camera one of: {there}")

    def file(self, template: str | None, where: str, **numbers: Any) -> str:
        """A file's path below the dataset's folder.

        Raises:
            BadInput: the template is not one, or leads out of the folder.
        """
        try:
            name = (template or "").format(**numbers)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise BadInput(f"{where}: {template!r} is no template of file names") from error
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts:
            raise BadInput(f"{where}: {template!r} leads to {name!r}, outside of the dataset")
        return name


def read_info(place: Place) -> Info:
    """The description of a dataset.

    Raises:
        BadInput: it is damaged, or of a version that this module does not read.
    """
    file = place.file(INFO)
    values = read_json(file)
    version = values.get("codebase_version") if isinstance(values, dict) else None
    if version not in VERSIONS:
        raise BadInput(
            f"{file}: codebase_version is {version!r}, and {', '.join(VERSIONS)} are read; convert "
            "it with lerobot's scripts (python -m lerobot.scripts.convert_dataset_v21_to_v30)"
        )
    known = {key: values[key] for key in Info.__dataclass_fields__ if key in values}
    known["splits"] = known.get("splits") or {}
    try:
        info = Info(**known)
    except (ValidationError, TypeError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        at = ".".join(map(str, fault.get("loc", ())))
        raise BadInput(f"{file}: {at}: {fault['msg']}; restore the file of the dataset") from error
    if not 0 < info.fps < 1000:
        raise BadInput(f"{file}: fps is {info.fps}; give frames per second as a positive number")
    return info
