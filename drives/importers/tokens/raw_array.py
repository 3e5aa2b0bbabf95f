"""Arrays without a header: the dtype is known, and the shape has to fit the file's size."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from training.errors import BadInput


def raw_array(file: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a file, C order and little-endian, memory-mapped.

    Raises:
        BadInput: the file is missing, or its size is not that of the shape.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    size, expected = _size(file), math.prod(shape) * kind.itemsize
    if size != expected:
        raise BadInput(
            f"{file}: has {size} bytes, but {dtype} of shape {list(shape)} has {expected}; it is "
            "cut short or belongs to another set: copy it again"
        )
    return np.memmap(file, kind, "r", shape=shape)


def raw_rows(file: Path, dtype: str, num_rows: int) -> np.ndarray:
    """The array [num_rows width], with the width worked out from the file's size.

    Raises:
        BadInput: the file is missing, or is no whole number of columns.
    """
    size, column = _size(file), num_rows * np.dtype(dtype).itemsize
    if not size or size % column:
        raise BadInput(
            f"{file}: has {size} bytes, no multiple of the {column} that a column of {num_rows} "
            f"rows of {dtype} has; it is cut short or belongs to another set: copy it again"
        )
    return raw_array(file, dtype, (num_rows, size // column))


def check_finite(file: Path, values: np.ndarray) -> None:
    """BadInput names the first row that holds a NaN or an infinity."""
    rows = ~np.isfinite(values).all(axis=-1)
    if rows.any():
        raise BadInput(f"{file}: row {int(rows.argmax())} is not finite; leave the set out")


def runs_of(file: Path, ids: np.ndarray) -> list[tuple[int, int, int]]:
    """(id, first row, row after the last) of every stretch of equal ids.

    Raises:
        BadInput: an id returns after others, so equal ids do not mean one recording.
    """
    edges = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    runs = [(int(ids[a]), a, b) for a, b in pairwise(edges) if a < b]
    seen: set[int] = set()
    for number, start, _ in runs:
        if number in seen:
            raise BadInput(
                f"{file}: segment {number} returns at frame {start} after other segments; "
                "give each recording an id of its own"
            )
        seen.add(number)
    return runs


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); copy the whole set") from error
