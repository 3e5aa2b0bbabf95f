"""The library of the C function."""

import ctypes
from functools import cache
from pathlib import Path

from training.disk.libraries import NoLibrary, compiled

HERE = Path(__file__).parent
SPLIT = 480  # positions that attention reads in one part; some tiles of a cache in 8 bits


def library() -> ctypes.CDLL:
    """The compiled library.

    Raises:
        NoLibrary: it cannot be compiled here.
    """
    found = _loaded()
    if isinstance(found, str):
        raise NoLibrary(found)
    return found


@cache
def _loaded() -> ctypes.CDLL | str:
    """The library, or why there is none: a broken compiler is not asked again."""
    try:
        loaded = compiled(HERE / "step.c", HERE / "lanes.h", options=f"-DSPLIT={SPLIT}")
    except NoLibrary as error:
        return str(error)
    loaded.arena_size.restype = ctypes.c_int64
    loaded.step.restype = None
    return loaded
