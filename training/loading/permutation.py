"""A keyed permutation of 0 .. n - 1: any place of it is computed alone, so nothing is stored."""

import hashlib
from math import isqrt

import numpy as np
from jaxtyping import Int

ROUNDS = 8


def permuted(places: Int[np.ndarray, " place"], size: int, key: str) -> Int[np.ndarray, " place"]:
    """The entries at some places of the permutation of `range(size)` that `key` names.

    A Feistel network over a x b >= size, walked along its cycle until the value is below `size`
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). a and b are near the root of
    `size`, so hardly any place takes a second walk.
    """
    keys = np.array([_number(f"{key}/{number}") for number in range(ROUNDS)], np.uint64)
    values = np.asarray(places, np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        values[outside] = _walked(values[outside], size, keys)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _walked(values: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    side = np.uint64(max(1, isqrt(max(0, size - 1)) + 1))
    other = np.uint64(-(-size // int(side)))
    high, low = np.divmod(values, side)
    for number in range(0, len(keys), 2):
        low = (low + _mixed(high, keys[number])) % side
        high = (high + _mixed(low, keys[number + 1])) % other
    return high * side + low


def _mixed(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Pseudo-random 32-bit numbers (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values + key) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values >> np.uint64(32)  # added to a value, it does not overflow


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
