"""The order of data: a pure function of (seed, samples consumed). No rank, no worker, no luck."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import Sampler


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_samples: int) -> torch.Tensor:
    # Hashed, because torch takes only the low 32 bits of a seed.
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    return torch.randperm(num_samples, generator=generator)


def sample_ids(seed: int, start: int, count: int, num_samples: int) -> list[int]:
    """Ids of samples `start .. start + count - 1` of the endless stream over the data set.

    Epoch e is the permutation seeded by (seed, e); epochs follow each other without gap.
    """
    ids: list[int] = []
    while len(ids) < count:
        epoch, offset = divmod(start + len(ids), num_samples)
        rest = count - len(ids)
        ids += _permutation(seed, epoch, num_samples)[offset : offset + rest].tolist()
    return ids


class DataOrder(Sampler[list[int]]):
    """Batch sampler over the endless stream; its whole state is `samples_consumed`.

    Every rank takes its slice of each *global* batch, so another number of ranks with the
    same global batch sees the same samples in the same order.

    Args:
        num_samples: size of the data set.
        num_batches: batches in the whole run (its length, also after a resume).
        batch_size: samples per rank and batch.
    """

    def __init__(
        self,
        num_samples: int,
        num_batches: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_samples < 1:
            raise ValueError("the data set is empty")
        self.num_samples, self.num_batches, self.batch_size = num_samples, num_batches, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.samples_consumed = 0

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        end = self.num_batches * self.global_batch
        for position in range(self.samples_consumed, end, self.global_batch):
            start = position + self.rank * self.batch_size
            yield sample_ids(self.seed, start, self.batch_size, self.num_samples)

    def global_ids(self, batch: int) -> list[int]:
        """Ids of all ranks' samples of the run's batch number `batch`, in order."""
        return sample_ids(self.seed, batch * self.global_batch, self.global_batch, self.num_samples)
