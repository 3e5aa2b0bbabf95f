"""Arrays of HDF5 files: numbers that lie in the file itself, all of them there."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import BadInput, first_line

MAX_ROWS = 1 << 24
WORDS = {"f": "real numbers", "i": "integers", "u": "unsigned integers"}
MAX_BYTES = 1 << 31  # of an array that is read whole


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An h5py file; BadInput where it is damaged, or h5py is not there."""
    try:
        import h5py
    except ImportError as error:
        raise BadInput(
            f"{path}: reading it needs the package h5py; pip install 'dashcast[hdf5]'"
        ) from error
    with errors_named(path), h5py.File(path, "r") as file:
        yield file


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """BadInput for what h5py raises on damage."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # nearly every kind
        raise BadInput(
            f"{path}: cannot be read as HDF5 ({first_line(error)}); copy it again"
        ) from error


def array_of(file: Any, name: str, kinds: str, num_axes: int) -> Any:
    """A dataset by its name; nothing of it is read yet.

    Args:
        kinds: NumPy's letters of the dtypes that may be: "u", "iu", "fiu".

    Raises:
        BadInput: it is missing, no array of numbers with so many axes, in another file, or parts
            of it were never written: HDF5 reads those as zeros.
    """
    import h5py

    where = f"{file.filename}: {name}"
    with errors_named(Path(file.filename)):
        # A link can lead to another file; so can external and virtual storage.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise BadInput(f"{where} is missing; there are {', '.join(file) or 'none'}")
        found = file[name]
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            raise BadInput(f"{where} is no array in this file; write it into the file itself")
        if found.dtype.kind not in kinds or found.ndim != num_axes or found.dtype.hasobject:
            wanted = " or ".join(WORDS[kind] for kind in kinds)
            raise BadInput(
                f"{where} holds {found.dtype} of shape {found.shape}; give {num_axes} axes of "
                f"{wanted}"
            )
        if not 0 < len(found) <= MAX_ROWS or 0 in found.shape:
            raise BadInput(f"{where} has the shape {found.shape}; give 1 to {MAX_ROWS} rows")
        if not _is_complete(found):
            raise BadInput(f"{where}: parts of it were never written; copy the file again")
    return found


def rows_of(dataset: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start <= i < stop` in memory; BadInput where they are damaged or too many."""
    path, stop = Path(dataset.file.filename), len(dataset) if stop is None else stop
    size = (stop - start) * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    if size > MAX_BYTES:
        raise BadInput(f"{path}: {dataset.name} has {size} bytes; give at most {MAX_BYTES}")
    with errors_named(path):
        return np.asarray(dataset[start:stop])


def _is_complete(dataset: Any) -> bool:
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() == dataset.nbytes)
    per_axis = [-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    return bool(dataset.id.get_num_chunks() == math.prod(per_axis))
