"""Finds the episodes of a LeRobotDataset and makes recordings of them.

Row t of `action` is what was commanded when frame t was seen: it is in force until frame t+1, as
in a drive. The time stamps of rows and videos decide which frame belongs to a row; frames are
never counted (https://huggingface.co/docs/lerobot/lerobot-dataset-v3).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drives.actions.table import check_actions
from drives.importers.recording import Candidate, ImportOptions, Recording, RecordingFormat
from drives.importers.recordings.lerobot.columns import (
    action_features,
    actions_of,
    captions_of,
    sentence_feature,
)
from drives.importers.recordings.lerobot.episodes import (
    Episode,
    read_episodes,
    read_rows,
    read_tasks,
)
from drives.importers.recordings.lerobot.frames import ParquetImages, frames_at
from drives.importers.recordings.lerobot.info import INFO, Info, read_info
from drives.importers.recordings.lerobot.places import HUB, Place, open_place
from drives.splits.base import SPLITS
from drives.video.gaps import DROPPED, Drop, read_drops
from training.errors import BadInput


@dataclass(frozen=True)
class LeRobotOptions(ImportOptions):
    """Settings of LeRobotDatasets.

    Attributes:
        camera: which one, as "front_left" or "observation.images.front_left"; needed where there
            are several.
        columns: columns of actions to keep, by our names, with commas; None: all.
        episodes: "first:stop" of the episodes to take; None: all.
    """

    camera: str | None = None
    columns: str | None = None
    episodes: str | None = None


@dataclass(frozen=True)
class _Dataset:
    place: Place
    info: Info
    name: str
    tasks: dict[int, str]
    options: LeRobotOptions

    def read(self, episode: Episode) -> list[Recording]:
        where = f"{self.name}: episode {episode.index}"
        camera = self.info.camera(self.options.camera, self.name)
        sentence = sentence_feature(self.info)
        columns = [*action_features(self.info), sentence or "task_index"]
        rows = read_rows(self.place, episode, columns)
        names, actions, track = actions_of(rows, self.info, where)
        names, actions = _kept(names, actions, self.options.columns, where)
        check_actions(Path(where), names, actions)
        captions = [asdict(caption) for caption in captions_of(rows, self.tasks, sentence)]
        source = f"LeRobotDataset {self.name}, episode {episode.index}, {camera}"
        licence = self.options.licence
        if licence == ImportOptions.licence:
            licence = episode.notes.get("licence", licence)
        meta: dict[str, Any] = {"source": episode.notes.get("source", source), "licence": licence}
        meta |= {"captions": captions} if captions else {}
        return [
            Recording(
                id=episode.notes.get("drive") or f"{self.name}-episode-{episode.index:06d}",
                source=self._frames(episode, camera, rows["timestamp"].to_numpy(), where),
                fps=self.info.fps,
                action_names=names,
                actions=actions,
                meta=meta,
                track=track,
                split=_split_of(self.info, episode.index),
                drops=_drops_of(episode, where),
            )
        ]

    def _frames(self, episode: Episode, camera: str, times_s: np.ndarray, where: str) -> Any:
        if self.info.features[camera].dtype == "image":
            return ParquetImages(self.place.file(episode.data), camera, episode.index)
        if camera not in episode.videos:
            raise BadInput(f"{where}: has no video of {camera}; choose another --camera")
        file, begins_s = episode.videos[camera]
        shown_s = begins_s + times_s.astype(np.float64)
        return frames_at(self.place.file(file), shown_s, self.info.fps)


def _kept(
    names: tuple[str, ...], actions: np.ndarray, columns: str | None, where: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The chosen columns; BadInput for one that is not there, or holds no number in some frame."""
    chosen = names if columns is None else tuple(filter(None, columns.split(",")))
    missing = [name for name in chosen if name not in names]
    if missing:
        raise BadInput(
            f"{where}: has no column {missing[0]!r}; give --columns of: {', '.join(names)}"
        )
    kept = actions[:, [names.index(name) for name in chosen]]
    bad = np.argwhere(~np.isfinite(kept))
    if len(bad):
        row, column = bad[0]
        raise BadInput(
            f"{where}: {chosen[column]} is {kept[row, column]} at frame {row}; leave the column "
            f"out (--columns names those to keep, of {', '.join(names)}) or the episode "
            "(--on-bad=skip)"
        )
    return chosen, kept


def find(root: Path, options: LeRobotOptions) -> list[Candidate]:
    """The episodes of a dataset; BadInput where there is no `meta/info.json`.

    A dataset with a fault in its tables is one candidate, whose reading says what it is.
    """
    if HUB.fullmatch(str(root)) is None and not (root / INFO).is_file():
        raise BadInput(
            f"{root}: no {INFO}; give the folder of a LeRobotDataset, or hf://datasets/OWNER/NAME"
        )
    try:
        place = open_place(root)
        info = read_info(place)
        name = root.resolve().name if HUB.fullmatch(str(root)) is None else root.name
        tasks = {} if sentence_feature(info) else read_tasks(place, info)
        dataset = _Dataset(place, info, name, tasks, options)
        episodes = _chosen(read_episodes(place, info), options.episodes)
    except BadInput as error:
        return [Candidate(str(root), partial(_refuse, str(error)))]
    return [
        Candidate(f"{root}: episode {episode.index}", partial(dataset.read, episode))
        for episode in episodes
    ]


def _refuse(reason: str) -> list[Recording]:
    raise BadInput(reason)


def _chosen(episodes: Sequence[Episode], text: str | None) -> list[Episode]:
    if text is None:
        return list(episodes)
    first, colon, stop = text.partition(":")
    if not colon or not (first + stop).isdigit():
        raise BadInput(f"episodes={text!r}: give first:stop, as 0:100")
    low, high = int(first or 0), int(stop) if stop else len(episodes)
    chosen = [episode for episode in episodes if low <= episode.index < high]
    if not chosen:
        raise BadInput(f"episodes={text!r}: holds none of the {len(episodes)} episodes")
    return chosen


def _drops_of(episode: Episode, where: str) -> list[Drop]:
    """Gaps that our export noted; BadInput for anything but pairs of numbers."""
    text = episode.notes.get(DROPPED, "[]")
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError):
        stated = text
    return read_drops({DROPPED: stated}, where) or []


def _split_of(info: Info, episode: int) -> str | None:
    """The split of an episode; None where all are in one, which is what every recorder writes."""
    if len(info.splits) < 2:
        return None
    for name, text in info.splits.items():
        first, _, stop = text.partition(":")
        inside = first.isdigit() and stop.isdigit() and int(first) <= episode < int(stop)
        if inside and name in SPLITS:
            return name
    return None


FORMAT = RecordingFormat(
    "LeRobotDataset v3.0 or v2.x (L2D), a folder or hf://datasets/OWNER/NAME", find, LeRobotOptions
)
