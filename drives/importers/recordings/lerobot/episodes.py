"""Which rows and frames each episode has: `meta/episodes` (3.0) or `meta/episodes.jsonl` (2.x)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drives.importers.recordings.lerobot.info import INFO, Info
from drives.importers.recordings.lerobot.places import Place
from drives.video.gaps import DROPPED
from training.errors import BadInput

EPISODES = "meta/episodes/*/*.parquet"
NOTES = ("drive", "source", "licence", DROPPED)  # columns that our own export adds


@dataclass(frozen=True)
class Episode:
    """One episode; several lie in one file.

    Attributes:
        data: Parquet file of its rows, below the dataset's folder.
        videos: of each camera: the file, and the second where the episode begins in it.
        notes: what our export says of the drive.
    """

    index: int
    length: int
    data: str
    videos: Mapping[str, tuple[str, float]] = field(repr=False)
    notes: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_episodes(place: Place, info: Info) -> list[Episode]:
    """All episodes in order.

    Raises:
        BadInput: the tables are missing or damaged.
    """
    cameras = [key for key in info.cameras if info.features[key].dtype == "video"]
    return _of_v2(place, info, cameras) if info.is_v2 else _of_v3(place, info, cameras)


def _of_v3(place: Place, info: Info, cameras: list[str]) -> list[Episode]:
    files = place.files(EPISODES)
    if not files:
        raise BadInput(f"{place.file(INFO).parent}: no episodes/chunk-*/file-*.parquet; copy them")
    numbers = ("chunk_index", "file_index")
    wanted = ["episode_index", "length", *(f"data/{number}" for number in numbers)]
    for key in cameras:
        wanted += [f"videos/{key}/{name}" for name in (*numbers, "from_timestamp")]
    found = []
    for file in files:
        columns = {name: values.to_pylist() for name, values in read_columns(file, wanted, NOTES)}
        for i in range(len(columns["episode_index"])):
            videos = {
                key: (
                    info.file(
                        info.video_path,
                        str(file),
                        video_key=key,
                        **{name: columns[f"videos/{key}/{name}"][i] for name in numbers},
                    ),
                    float(columns[f"videos/{key}/from_timestamp"][i]),
                )
                for key in cameras
                if columns[f"videos/{key}/from_timestamp"][i] is not None
            }
            places = {name: columns[f"data/{name}"][i] for name in numbers}
            data = info.file(info.data_path, str(file), **places)
            notes = {name: str(columns[name][i]) for name in NOTES if columns.get(name)}
            index, length = columns["episode_index"][i], columns["length"][i]
            found.append(Episode(int(index), int(length), data, videos, notes))
    return sorted(found, key=lambda episode: episode.index)


def _of_v2(place: Place, info: Info, cameras: list[str]) -> list[Episode]:
    file = place.file("meta/episodes.jsonl")
    found = []
    for number, entry in enumerate(read_lines(file)):
        index, length = entry.get("episode_index"), entry.get("length")
        if type(index) is not int or type(length) is not int:
            raise BadInput(f"{file}: line {number}: has no episode_index and length; restore it")
        places = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        videos = {
            key: (info.file(info.video_path, str(file), video_key=key, **places), 0.0)
            for key in cameras
        }
        data = info.file(info.data_path, str(file), **places)
        found.append(Episode(index, length, data, videos))
    return found


def read_tasks(place: Place, info: Info) -> dict[int, str]:
    """The sentence of each task, by its number."""
    if info.is_v2:
        lines = read_lines(place.file("meta/tasks.jsonl"))
        return {entry["task_index"]: str(entry["task"]) for entry in lines if "task_index" in entry}
    file = place.file("meta/tasks.parquet")
    columns = dict(read_columns(file, ["task_index"], ("task", "__index_level_0__")))
    # pandas calls an index without a name so.
    texts = columns.get("task", columns.get("__index_level_0__"))
    if texts is None:
        raise BadInput(f"{file}: has no column 'task'; restore the file of the dataset")
    return dict(zip(columns["task_index"].to_pylist(), map(str, texts.to_pylist()), strict=True))


def read_rows(place: Place, episode: Episode, columns: list[str]) -> pa.Table:
    """The rows of an episode in order, of the named columns and `timestamp`.

    Raises:
        BadInput: rows are missing, doubled, or out of order.
    """
    file = place.file(episode.data)
    needed = ["episode_index", "frame_index", "timestamp", *columns]
    table = _cached(file, file.stat().st_mtime_ns, tuple(dict.fromkeys(needed)))
    rows = table.filter(pc.equal(table["episode_index"], episode.index))
    if rows["frame_index"].to_pylist() != list(range(episode.length)):
        raise BadInput(
            f"{file}: episode {episode.index} has {len(rows)} rows, numbered from "
            f"{rows['frame_index'][0] if len(rows) else 'none'}; {episode.length} are expected, "
            "numbered from 0; copy the file again"
        )
    return rows


@lru_cache(maxsize=2)  # episodes of one file are asked for one after the other
def _cached(file: Path, _mtime_ns: int, names: tuple[str, ...]) -> pa.Table:
    return pa.table(dict(read_columns(file, list(names))))


def read_columns(
    file: Path, names: list[str], optional: tuple[str, ...] = ()
) -> list[tuple[str, pa.ChunkedArray]]:
    """Columns of a Parquet file; BadInput where one is missing or damaged."""
    try:
        schema = pq.read_schema(file)
        missing = [name for name in names if name not in schema.names]
        if missing:
            raise BadInput(f"{file}: has no column {missing[0]!r}; restore the dataset's file")
        wanted = [*names, *(name for name in optional if name in schema.names)]
        table = pq.read_table(file, columns=wanted, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{file}: cannot be read ({error}); copy the file again") from error
    return [(name, table[name]) for name in table.column_names]


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` file."""
    entries = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                entries.append(json.loads(line))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: line {len(entries)} cannot be read ({error})") from error
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{file}: each line should be a JSON object; restore the file")
    return entries
