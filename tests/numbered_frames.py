"""Frames that say their number, through any codec."""

from collections.abc import Iterable

import numpy as np


def numbered(count: int, height: int = 32, width: int = 64, first: int = 0) -> list[np.ndarray]:
    """Frame i shows the bits of i as eight dark or bright bars, so that no codec blurs them."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    bars = np.repeat(np.unpackbits(numbers[:, None], axis=1) * 200 + 20, width // 8, axis=1)
    return [np.tile(row[None, :, None], (height, 1, 3)).astype(np.uint8) for row in bars]


def numbers_of(frames: Iterable[np.ndarray]) -> list[int]:
    """The numbers that they show."""
    means = np.stack([frame.mean(axis=(0, 2)) for frame in frames])
    bits = means.reshape(len(means), 8, -1).mean(axis=2) > 120
    return np.packbits(bits, axis=1)[:, 0].tolist()
