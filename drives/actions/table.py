"""Reads and checks the actions of a drive: one row per frame, one column per action."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float

from training.errors import BadInput

# A cell that is meant as a number, whatever marks decimals and thousands.
NUMBER = re.compile(r"\s*[-+]?\d[\d.,' ]*([eE][-+]?\d+)?\s*")
BOUNDS = {"steering": (-1.0, 1.0), "throttle": (0.0, 1.0), "brake": (0.0, 1.0)}


def check_actions(
    file: Path, names: Sequence[str], actions: Float[np.ndarray, "frame action"]
) -> None:
    """BadInput unless column names are unique and values are finite and within `BOUNDS`."""
    if len(set(names)) != len(names) or len(names) != actions.shape[1]:
        raise BadInput(f"{file}: columns are {', '.join(names)}; give each one name of its own")
    bad = np.argwhere(~np.isfinite(actions))
    if len(bad):
        row, column = bad[0]
        raise BadInput(
            f"{file}: row {row}, column {names[column]!r} is {actions[row, column]}; "
            "every action must be a finite number"
        )
    for index, name in enumerate(names):
        low, high = BOUNDS.get(name, (-np.inf, np.inf))
        outside = np.flatnonzero((actions[:, index] < low) | (actions[:, index] > high))
        if len(outside):
            raise BadInput(
                f"{file}: row {outside[0]}, {name} is {actions[outside[0], index]:g}, outside "
                f"[{low:g}, {high:g}]; rescale the column"
            )


def actions_file(path: Path) -> Path | None:
    # A broken link counts: otherwise the frames would pass as a drive without actions.
    names = ("actions.parquet", "actions.csv")
    return next((path / name for name in names if os.path.lexists(path / name)), None)


def read_actions(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Column names and values; none of either for frames alone."""
    file = actions_file(path)
    if file is None:
        return (), np.zeros((0, 0), dtype=np.float32)
    names, values = read_table(file)
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused
        actions = values.astype(np.float32)
    check_actions(file, names, actions)
    return names, actions


def read_table(file: Path) -> tuple[tuple[str, ...], Float[np.ndarray, "row column"]]:
    """Column names and float64 values of a CSV or Parquet file; empty fields become NaN.

    Raises:
        BadInput: the file cannot be read, or holds something other than numbers.
    """
    read = pa.parquet.read_table if file.suffix == ".parquet" else pa.csv.read_csv
    try:
        table = read(file)
        columns = [column.cast(pa.float64(), safe=False).to_numpy() for column in table.columns]
        names = tuple(table.column_names)  # decoding happens here
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        raise BadInput(f"{file}: cannot be read as numbers ({error}); correct the file") from error
    if not columns:
        raise BadInput(f"{file}: has no columns; write one row of actions per frame")
    if all(NUMBER.fullmatch(name) for name in names):
        raise BadInput(
            f"{file}: begins with numbers ({', '.join(names)[:60]}) and has no header; write the "
            "names of the columns into its first line"
        )
    return names, np.stack(columns, axis=1)
