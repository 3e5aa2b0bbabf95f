"""NumPy's .npy from a stream: the header is checked before the data; nothing is unpickled."""

import math
import tokenize
import warnings
from collections.abc import Callable
from typing import IO

import numpy as np

from training.errors import BadInput

MAX_HEADER = 4096
# Exceptions that NumPy's header parser lets through.
BAD_HEADER = (
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
    OverflowError,
    EOFError,
    OSError,
)


def read_npy(
    file: IO[bytes], size: int, where: str, judge: Callable[[tuple[int, ...], np.dtype], None]
) -> np.ndarray:
    """The array of a .npy file.

    Args:
        size: bytes of the file.
        where: names it in messages.
        judge: raises BadInput for a wrong shape or dtype, before any data is read.

    Raises:
        BadInput: not a .npy file, a pickled array, or a length that contradicts the header.
    """
    try:
        shape, fortran, dtype, length = _header(file)
    except BAD_HEADER as error:
        # Only the first line: numpy's other lines advise to trust the file.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{where}: is not a NumPy array file ({reason}); copy it again") from error
    judge(shape, dtype)
    expected = math.prod(shape) * dtype.itemsize
    if size != length + expected:
        raise BadInput(
            f"{where}: is not a NumPy array file ({size - length} bytes for {dtype} of shape "
            f"{shape}, {expected} expected); copy it again"
        )
    values = np.frombuffer(bytearray(file.read(expected)), dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype, and length of the header in bytes."""
    counted = _Counted(file)
    version = np.lib.format.read_magic(counted)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"its version is {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for headers of Python 2
        shape, fortran, dtype = read(counted, max_header_size=MAX_HEADER)
    if dtype.hasobject or dtype.names or any(length < 0 for length in shape):
        raise ValueError(f"it holds {dtype} of shape {shape}")
    return shape, fortran, dtype, counted.count


class _Counted:
    """A stream that counts the bytes read and returns at most the size of a header."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.count = file, 0

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= 4 * MAX_HEADER:  # version 2 states up to 4 GB, read at once
            raise ValueError(f"its header has {size} bytes")
        content = self.file.read(size)
        self.count += len(content)
        return content
