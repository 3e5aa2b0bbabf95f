"""Keys: samples that look alike share some, so sorting finds pairs.

The cost is that of sorting all keys. Buckets with very many samples (a straight road, a black
screen) are left out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, Num, UInt64

from drives.duplicates.prints import Print

NUM_KEYS = 16
LOW = 8  # lowest frequencies per axis
CELLS = 4  # of a token key
MOST_PAIRS = 1 << 9  # of a bucket


def keys_of(prints: Sequence[Print]) -> UInt64[np.ndarray, "key sample"]:
    """Keys of all samples, drive after drive; the same parts of every picture in each key."""
    total = sum(len(one.pictures) for one in prints)
    rng = np.random.default_rng(0)
    if prints[0].pictures.ndim == 2:  # tokens
        width = prints[0].pictures.shape[1]
        parts = [rng.choice(width, min(CELLS, width), replace=False) for _ in range(NUM_KEYS)]
        return np.concatenate([_token_keys(one.pictures, parts) for one in prints], axis=1)
    # Enough bits to tell all samples apart; more would lose pairs that differ a little.
    bits = int(np.clip(np.ceil(np.log2(max(total, 2))), 10, 20))
    chosen = [rng.choice(LOW * LOW - 1, bits, replace=False) for _ in range(NUM_KEYS)]
    return np.concatenate([_picture_keys(_code(one.pictures), chosen) for one in prints], axis=1)


def _code(pictures: Num[np.ndarray, "sample 32 32"]) -> Bool[np.ndarray, "sample 63"]:
    """Signs of the low frequencies (Zauner 2010, Implementation and Benchmarking of pHash)."""
    side = pictures.shape[-1]
    waves = np.cos(np.pi / side * np.outer(np.arange(LOW), np.arange(side) + 0.5))
    waves = waves.astype(np.float32)  # of the cosine transform
    parts = []
    for at in range(0, len(pictures), 4096):
        some = np.asarray(pictures[at : at + 4096], np.float32)
        low = waves @ some @ waves.T
        parts.append(low.reshape(len(some), -1)[:, 1:] > 0)
    return np.concatenate(parts)


def _picture_keys(
    code: Bool[np.ndarray, "sample 63"], chosen: Sequence[np.ndarray]
) -> UInt64[np.ndarray, "key sample"]:
    powers = np.uint64(1) << np.arange(len(chosen[0]), dtype=np.uint64)
    return np.stack([(code[:, bits] * powers).sum(1, dtype=np.uint64) for bits in chosen])


def _token_keys(
    tokens: Num[np.ndarray, "sample cell"], parts: Sequence[np.ndarray]
) -> UInt64[np.ndarray, "key sample"]:
    keys = []
    for cells in parts:
        key = np.zeros(len(tokens), np.uint64)
        for cell in cells:  # overflows and wraps, as hashes do
            key = key * np.uint64(0x9E3779B97F4A7C15) + tokens[:, cell].astype(np.uint64)
        keys.append(key)
    return np.stack(keys)


def pairs_of(
    keys: UInt64[np.ndarray, " sample"], splits: Int[np.ndarray, " sample"]
) -> Iterator[tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]]:
    """Samples with equal keys in different splits: numbers of the earlier split and the later."""
    order = np.lexsort((splits, keys))
    keys, splits = keys[order], splits[order]
    ends = np.flatnonzero(np.diff(keys, append=keys[-1:] + np.uint64(1)) != 0) + 1
    starts = np.concatenate([[0], ends[:-1]])
    for first in range(splits.max() + 1):
        # Within a bucket samples stand by their splits: [first][later].
        counts = np.add.reduceat(splits == first, starts)
        begin = starts + np.add.reduceat(splits < first, starts)
        later = ends - begin - counts
        yield from _crossed(order, begin, counts, later)


def _crossed(
    order: np.ndarray, begin: np.ndarray, counts: np.ndarray, later: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    num = counts * later
    chosen = np.flatnonzero((num > 0) & (num <= MOST_PAIRS))
    if not len(chosen):
        return
    begin, counts, later, num = (x[chosen] for x in (begin, counts, later, num))
    within = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    width = np.repeat(later, num)
    base = np.repeat(begin, num)
    yield order[base + within // width], order[base + np.repeat(counts, num) + within % width]
