"""Drives -> a LeRobotDataset v3.0 (https://huggingface.co/docs/lerobot/lerobot-dataset-v3).

A drive becomes an episode, its columns the feature `action`, its captions the tasks. Videos are
copied packet by packet where they can be: then the dataset decodes to the same bits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from drives import video
from drives.drive import Drive
from drives.exporters.export_format import ExportFormat, ExportOptions, refuse_varying
from drives.exporters.lerobot.statistics import histogram, of_numbers, of_pixels
from drives.exporters.lerobot.tables import (
    CHUNK_FILES,
    DATA_PATH,
    INDEX_FEATURES,
    MAX_DATA_MB,
    MAX_VIDEO_MB,
    VIDEO_PATH,
    RowsWriter,
    place_of_file,
    write_episodes,
    write_tasks,
)
from drives.folder import open_folders
from drives.sources import DriveSource
from drives.splits.base import SPLITS
from drives.video.gaps import DROPPED
from drives.video.joining import VideoJoiner, can_copy
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import folder_name, refuse_existing
from training.errors import BadInput


@dataclass(frozen=True)
class LeRobotExport(ExportOptions):
    """Settings of the dataset.

    Attributes:
        split: drives of this split alone; None: all.
        camera: name of the camera: the feature is observation.images.NAME.
        robot_type: of the car, as meta/info.json notes it.
    """

    split: str | None = None
    camera: str = "front"
    robot_type: str = "car"


def export(root: Path, out: Path, options: LeRobotExport) -> list[Path]:
    """Write the drives of a folder as a dataset; the folder appears only when it is complete.

    Raises:
        BadInput: drives of several sizes or rates, or of one that varies, or without a column in
            common; a frame cannot be read; `out` exists.
    """
    folder_name("camera", options.camera)
    refuse_existing("out", out)
    drives = [d for d in open_folders(root) if options.split in (None, d.split)]
    if not drives:
        raise BadInput(f"{root}: no drive is in split {options.split!r}; choose another --split")
    _check_alike(drives)
    refuse_varying(drives)
    names = DriveSource().action_names(drives)
    # Splits are ranges of episodes.
    ordered = sorted(drives, key=lambda drive: (SPLITS.index(drive.split or "train"), drive.id))
    sweep_leftovers(out.parent, out.name)
    with written_whole(out) as partial_folder:
        (partial_folder / "meta").mkdir(parents=True)
        _write(ordered, partial_folder, names, options)
    return [out]


def _check_alike(drives: Sequence[Drive]) -> None:
    first = drives[0]
    for drive in drives:
        if drive.fps != first.fps:
            raise BadInput(
                f"{drive.path}: has {drive.fps:g} frames per second, {first.path} has "
                f"{first.fps:g}; a dataset has one rate, export them apart"
            )
        if drive.frame_size != first.frame_size:
            raise BadInput(
                f"{drive.path}: frames are {drive.frame_size}, those of {first.path} "
                f"{first.frame_size} (height, width); export them apart"
            )


def _write(
    drives: Sequence[Drive], root: Path, names: tuple[str, ...], options: LeRobotExport
) -> None:
    key, fps = f"observation.images.{options.camera}", drives[0].fps
    sentences = [_sentences(drive) for drive in drives]
    tasks = list(dict.fromkeys(text for texts in sentences for text in texts))
    write_tasks(root, tasks)
    numbers = {text: number for number, text in enumerate(tasks)}
    levels, num_sampled = np.zeros((3, 256), np.int64), 0
    episodes, rows = [], RowsWriter(root, fps, names)
    video_file = partial(_video_file, root, key)
    with VideoJoiner(video_file, fps, MAX_VIDEO_MB << 20) as joiner:
        for index, drive in enumerate(tqdm(drives, "writing", unit="drive", leave=False)):
            texts = sentences[index]
            entry: dict[str, Any] = {
                "episode_index": index,
                "tasks": list(dict.fromkeys(texts)),
                "length": len(drive.actions),
                **rows.add(index, drive, [numbers[text] for text in texts]),
                **_place(key, drive, *_add_video(joiner, drive, root)),
                **_notes(drive),
            }
            own_levels, own_sampled = histogram(drive)
            statistics = _statistics([drive], names) | {key: of_pixels(own_levels, own_sampled)}
            for feature, values in statistics.items():
                entry |= {f"stats/{feature}/{name}": value for name, value in values.items()}
            entry |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            episodes.append(entry)
            levels, num_sampled = levels + own_levels, num_sampled + own_sampled
    rows.close()
    write_episodes(root, episodes)
    statistics = _statistics(drives, names) | {key: of_pixels(levels, num_sampled)}
    _write_json(root / "meta/stats.json", statistics)
    _write_json(root / "meta/info.json", _info(drives, names, key, options, len(tasks)))


def _sentences(drive: Drive) -> list[str]:
    """The task of every frame: the captions about it; "" where there is none."""
    texts: list[list[str]] = [[] for _ in drive.actions]
    for caption in drive.captions:
        for frame in range(caption.start, caption.stop):
            texts[frame].append(caption.text)
    return [" ".join(found) for found in texts]


def _add_video(joiner: VideoJoiner, drive: Drive, root: Path) -> tuple[int, float]:
    drive.check_pixels()
    source = drive.source
    if drive.span is None and isinstance(source, Path) and can_copy(source, drive.fps):
        return joiner.add(source)
    encoded = root / "encoded.mp4"
    video.write_video(encoded, drive.frames(), drive.fps)
    place = joiner.add(encoded)
    encoded.unlink()
    return place


def _place(key: str, drive: Drive, number: int, begins_s: float) -> dict[str, Any]:
    times = {
        "from_timestamp": begins_s,
        "to_timestamp": begins_s + len(drive.actions) / drive.fps,
    }
    return {f"videos/{key}/{k}": v for k, v in (place_of_file(number) | times).items()}


def _notes(drive: Drive) -> dict[str, str]:
    """What the format has no place for: so that an import makes the same drive of it."""
    name = drive.id.removesuffix(f"-{drive.split}")
    about = {key: str(drive.meta.get(key, "unknown")) for key in ("source", "licence")}
    return {"drive": name, **about, DROPPED: json.dumps(drive.drops)}


def _statistics(drives: Sequence[Drive], names: tuple[str, ...]) -> dict[str, Any]:
    """Of the actions and of the columns that every dataset has."""
    counts = [len(drive.actions) for drive in drives]
    within = np.concatenate([np.arange(count) for count in counts])
    found = {"timestamp": of_numbers((within / drives[0].fps)[:, None])}
    found["frame_index"] = of_numbers(within[:, None])
    if names:
        values = np.concatenate([drive.select_actions(names) for drive in drives])
        found["action"] = of_numbers(values)
    return found


def _info(
    drives: Sequence[Drive],
    names: tuple[str, ...],
    key: str,
    options: LeRobotExport,
    num_tasks: int,
) -> dict[str, Any]:
    fps = drives[0].fps
    height, width = drives[0].frame_size
    plain = {"shape": [1], "names": None}
    features: dict[str, Any] = {}
    if names:
        features["action"] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    about = {"video.height": height, "video.width": width, "video.channels": 3, "video.fps": fps}
    features[key] = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": about | {"video.is_depth_map": False, "is_depth_map": False, "has_audio": False},
    }
    features["timestamp"] = {"dtype": "float32", **plain}
    features |= {name: {"dtype": "int64", **plain} for name in INDEX_FEATURES}
    return {
        "codebase_version": "v3.0",
        "robot_type": options.robot_type,
        "total_episodes": len(drives),
        "total_frames": sum(len(drive.actions) for drive in drives),
        "total_tasks": num_tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": MAX_DATA_MB,
        "video_files_size_in_mb": MAX_VIDEO_MB,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": _splits(drives),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }


def _splits(drives: Sequence[Drive]) -> dict[str, str]:
    """Ranges of episodes; the drives lie in this order."""
    ranges, first = {}, 0
    for split, group in groupby(drives, lambda drive: drive.split or "train"):
        stop = first + len(list(group))
        ranges[split], first = f"{first}:{stop}", stop
    return ranges


def _video_file(root: Path, key: str, number: int) -> Path:
    return root / VIDEO_PATH.format(video_key=key, **place_of_file(number))


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=4) + "\n")


FORMAT = ExportFormat(
    "LeRobotDataset v3.0: for lerobot and the hub", "drives", export, LeRobotExport
)
