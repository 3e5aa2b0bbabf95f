"""The Parquet files of a LeRobotDataset: rows of frames, episodes, tasks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drives.drive import Drive

CHUNK_FILES = 1000  # files per folder
MAX_DATA_MB, MAX_VIDEO_MB = 100, 200  # lerobot's own limits
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
TASKS_FILE = "meta/tasks.parquet"
INDEX_FEATURES = ("frame_index", "episode_index", "index", "task_index")


def place_of_file(number: int) -> dict[str, int]:
    """Chunk and number in it of the n-th file."""
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}


class RowsWriter:
    """Writes the rows of episodes behind each other; a file begins where one is full."""

    def __init__(self, root: Path, fps: float, action_names: Sequence[str]) -> None:
        self._root, self._fps, self._names = root, fps, action_names
        self._writer: pq.ParquetWriter | None = None
        self._number, self._num_rows = -1, 0
        self._file = root

    def add(self, episode: int, drive: Drive, tasks: Sequence[int]) -> dict[str, int]:
        """Append a drive; where its rows are, as the episodes' table says it."""
        table = self._rows(episode, drive, tasks)
        if self._writer is None or self._file.stat().st_size > MAX_DATA_MB << 20:
            self.close()
            self._number += 1
            self._file = self._root / DATA_PATH.format(**place_of_file(self._number))
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)  # a row group of its own: readers skip the others
        first, self._num_rows = self._num_rows, self._num_rows + len(table)
        place = {f"data/{name}": value for name, value in place_of_file(self._number).items()}
        return place | {"dataset_from_index": first, "dataset_to_index": self._num_rows}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _rows(self, episode: int, drive: Drive, tasks: Sequence[int]) -> pa.Table:
        count = len(drive.actions)
        columns: dict[str, Any] = {}
        if self._names:
            flat = pa.array(drive.select_actions(self._names).ravel())
            # A feature of shape (1,) is a plain number.
            is_one = len(self._names) == 1
            lists = pa.FixedSizeListArray.from_arrays
            columns["action"] = flat if is_one else lists(flat, len(self._names))
        columns |= {
            "timestamp": (np.arange(count) / self._fps).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, episode),
            "index": np.arange(count) + self._num_rows,
            "task_index": np.array(tasks, np.int64),
        }
        return pa.table(columns)


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """`meta/tasks.parquet`: lerobot finds a sentence by its place in pandas' index `task`."""
    table = pa.table({"task_index": np.arange(len(tasks)), "task": pa.array(tasks, pa.string())})
    names = {"name": "task", "field_name": "task", "pandas_type": "unicode", "metadata": None}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64"}
    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {**number, "numpy_type": "int64", "metadata": None},
            {**names, "numpy_type": "object"},
        ],
        "pandas_version": "2.0.0",
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), root / TASKS_FILE)


def write_episodes(root: Path, episodes: Sequence[dict[str, Any]]) -> None:
    """`meta/episodes`: one row per episode."""
    file = root / EPISODES_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(episodes)), file)
