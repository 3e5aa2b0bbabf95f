"""The order of data: a pure function of (seed, samples consumed), not of ranks or workers.

The permutation of a small data set is drawn and kept. That of a large one is computed where it is
needed: 60 million samples would cost 471 MB and 14 s in every process, and again in every epoch.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Sampler

from training.loading.permutation import permuted

MAX_DRAWN = 2**20  # samples; this and `permuted` fix the order of every run: change neither
AT_ONCE = 4096  # places that are computed together


class Weights:
    """Relative sampling frequency of each sample.

    An epoch then holds sample i `n * w_i / sum(w)` times, rounded up or down by systematic
    sampling (Madow 1949): one uniform number per epoch. So the mean over epochs is exact.

    Raises:
        ValueError: no weights, or a weight that is not a positive number.
    """

    def __init__(self, values: Sequence[float] | np.ndarray) -> None:
        weights = np.asarray(values, np.float64)
        if not len(weights) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("weights must be positive numbers, one per sample")
        self._ends = np.cumsum(weights) * (len(weights) / weights.sum())
        self._ends[-1] = np.inf  # rounding must not lose the last sample

    def chosen(self, places: Int[np.ndarray, " place"], offset: float) -> Int[np.ndarray, " place"]:
        """Ids at some places of one epoch's ascending list, which is as long as the data set.

        Args:
            offset: in [0, 1), one for the epoch, of at most 24 bits, so that sums are exact.
        """
        return np.searchsorted(self._ends, places + offset, side="right")


@lru_cache(maxsize=2)
def _drawn(
    seed: int, epoch: int, num_samples: int, weights: Weights | None
) -> Int[np.ndarray, " place"]:
    # Hashed, because torch takes only the low 32 bits of a seed.
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    # The permutation is drawn first: equal weights give the order without weights.
    order = torch.randperm(num_samples, generator=generator).numpy()
    if weights is None:
        return order
    return weights.chosen(order, torch.randint(2**24, (), generator=generator).item() / 2**24)


@lru_cache(maxsize=4)
def _computed(
    seed: int, epoch: int, num_samples: int, weights: Weights | None, part: int
) -> Int[np.ndarray, " place"]:
    """Part number `part` of the epoch, `AT_ONCE` places long."""
    places = np.arange(part * AT_ONCE, min((part + 1) * AT_ONCE, num_samples))
    order = permuted(places, num_samples, f"{seed}/{epoch}")
    if weights is None:
        return order
    digest = hashlib.sha256(f"{seed}/{epoch}/weights".encode()).digest()
    return weights.chosen(order, int.from_bytes(digest[:3], "big") / 2**24)


def sample_ids(
    seed: int,
    start: int,
    count: int,
    num_samples: int,
    weights: Weights | None = None,
    drawn: bool | None = None,
) -> list[int]:
    """Ids of samples `start .. start + count - 1` of the endless stream over the data set.

    Epoch e is the permutation, keyed by (seed, e), of all samples or of those chosen by the
    weights. Epochs follow each other without a gap.

    Args:
        drawn: whether to draw and keep the permutation; None: if `num_samples` <= `MAX_DRAWN`.
    """
    if drawn is None:
        drawn = num_samples <= MAX_DRAWN
    ids: list[int] = []
    while len(ids) < count:
        epoch, place = divmod(start + len(ids), num_samples)
        rest = count - len(ids)
        if drawn:
            found = _drawn(seed, epoch, num_samples, weights)
        else:
            part, place = divmod(place, AT_ONCE)
            found = _computed(seed, epoch, num_samples, weights, part)
        ids += found[place : place + rest].tolist()
    return ids


class DataOrder(Sampler[list[int]]):
    """Batch sampler over the endless stream; its state is `samples_consumed`.

    Every rank takes its slice of each *global* batch, so another number of ranks with the
    same global batch sees the same samples in the same order.

    Args:
        num_samples: size of the data set.
        num_batches: batches in the whole run, also after a resume.
        batch_size: samples per rank and batch.
        weights: of the samples; None: all equal.

    Attributes:
        drawn: as in `sample_ids`; a checkpoint of before, when all were drawn, goes on so.
    """

    def __init__(
        self,
        num_samples: int,
        num_batches: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Weights | None = None,
    ) -> None:
        if num_samples < 1:
            raise ValueError("the data set is empty")
        self.num_samples, self.num_batches, self.batch_size = num_samples, num_batches, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.weights = weights
        self.samples_consumed = 0
        self.drawn = num_samples <= MAX_DRAWN

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        end = self.num_batches * self.global_batch
        for position in range(self.samples_consumed, end, self.global_batch):
            yield self.local_ids(position)

    def local_ids(self, position: int) -> list[int]:
        """Ids of this rank's samples of the global batch that begins at a place of the stream."""
        return self._ids(position + self.rank * self.batch_size, self.batch_size)

    def global_ids(self, batch: int) -> list[int]:
        """Ids of all ranks' samples of the run's batch number `batch`, in order."""
        return self._ids(batch * self.global_batch, self.global_batch)

    def _ids(self, start: int, count: int) -> list[int]:
        return sample_ids(self.seed, start, count, self.num_samples, self.weights, self.drawn)
