"""An even choice among things in a row: clips of a drive, drives of a split."""

import numpy as np


def spread(size: int, num: int) -> list[int]:
    """`num` different places of `size`, evenly spread, both ends among them; or all there are."""
    return np.unique(np.linspace(0, size - 1, min(num, size)).astype(int)).tolist()
