"""Matrices whose rows lie on grids of few bits, and the range coding of integers by depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from worldmodel.codec.coder import opened

DEEPEST = 12  # bits of an integer, without its sign
Classes = Mapping[int, Sequence[np.ndarray]]  # rows of integers by their depth


@dataclass(frozen=True, eq=False)
class Grid:
    """The rows of a matrix as integers times powers of two.

    Attributes:
        exponents: of two; 0 for a row of zeros.
        depths: bits of the largest integer of a row, without its sign.
    """

    integers: Integer[np.ndarray, "row column"]
    exponents: Integer[np.ndarray, " row"]
    depths: Integer[np.ndarray, " row"]

    @property
    def pairs(self) -> np.ndarray:
        """Depth and exponent of every row in the two bytes of a half."""
        both = [self.depths.astype(np.uint8), self.exponents.astype(np.int8).view(np.uint8)]
        return np.stack(both, axis=1).view("<f2")[:, 0]


def found(rows: Float[np.ndarray, "row column"]) -> Grid | None:
    """The grid of a float32 matrix; None where a row needs more than `DEEPEST` bits."""
    mantissa, exponent = np.frexp(rows.astype(np.float64))
    whole = (mantissa * 2**24).astype(np.int64)
    lowest = np.log2(np.maximum(whole & -whole, 1)).astype(np.int64)
    finest = np.where(whole == 0, 2**15, exponent - 24 + lowest).min(1)
    finest = np.where(finest == 2**15, 0, finest)
    largest = np.abs(np.ldexp(rows.astype(np.float64), -finest[:, None])).max(1)
    depths = np.frexp(largest)[1]
    if depths.max() > DEEPEST or np.abs(finest).max() > 127:
        return None
    integers = np.ldexp(rows.astype(np.float64), -finest[:, None]).astype(np.int32)
    return Grid(integers, finest, depths)


def read_pairs(halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depths and exponents of `Grid.pairs`; ValueError where no grid has such."""
    both = np.ascontiguousarray(halves).view(np.uint8).reshape(-1, 2)
    depths, exponents = both[:, 0].astype(np.int64), both[:, 1].view(np.int8).astype(np.int64)
    if depths.max(initial=0) > DEEPEST:
        raise ValueError(f"a row of {depths.max()} bits")
    return depths, exponents


def encoded(classes: Classes) -> tuple[bytes, dict[int, list[int]]]:
    """The code of all rows, class by class, and the histogram of each class.

    A class counts its integers from -n to n.
    """
    library, _ = opened()
    coder, counts = library.stream.queue.RangeEncoder(), {}
    for depth in sorted(classes):
        every = np.concatenate(classes[depth]).astype(np.int32)
        most = int(np.abs(every).max())
        counts[depth] = np.bincount(every + most, minlength=2 * most + 1)
        coder.encode(every + most, _family(counts[depth]))
    told = {depth: own.tolist() for depth, own in counts.items()}
    return coder.get_compressed().astype("<u4").tobytes(), told


def decoded(
    code: bytes, counts: Mapping[int, np.ndarray], sizes: Mapping[int, int]
) -> dict[int, np.ndarray]:
    """The integers of each class in a row, given how many there are."""
    library, _ = opened()
    coder = library.stream.queue.RangeDecoder(np.frombuffer(code, "<u4").astype(np.uint32))
    rows = {}
    for depth in sorted(sizes):
        own = coder.decode(_family(counts[depth]), sizes[depth])
        rows[depth] = np.asarray(own) - len(counts[depth]) // 2
    return rows


def _family(counts: np.ndarray) -> Any:
    library, _ = opened()
    if counts.min(initial=0) < 0 or counts.sum() < 1:
        raise ValueError("a histogram that counts nothing")
    # A ratio of integers: one rounding, the same on every machine.
    return library.stream.model.Categorical(counts / counts.sum(), perfect=False)
