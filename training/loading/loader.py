"""A data loader that resumes exactly, restarts dead workers, and replaces unreadable samples."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from training.config import POLICIES
from training.errors import CorruptSample, TrainingFault
from training.handing_over import cause_of, last_line, shared
from training.loading.order import DataOrder
from training.loading.pools import end_with_parent
from training.loading.spread import spread
from training.ranges import one_of

AHEAD = 64  # batches whose samples are fetched in the background, where they are far
MAX_RESTARTS = 3  # of workers, without a batch in between


class Samples(Protocol):
    """A map-style data set that can describe the origin of a sample."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def describe(self, index: int) -> dict[str, Any]: ...


class Replacing(Dataset[tuple[Any, list[str]]]):
    """Replaces an unreadable sample by another one, a fixed function of its id.

    Ids keep their meaning, so order and resume do not change. Every item comes with the
    messages of the samples that it replaces.
    """

    def __init__(self, samples: Samples, policy: str, max_tries: int = 100) -> None:
        one_of(POLICIES, on_corrupt=policy)
        self.samples, self.policy, self.max_tries = samples, policy, max_tries

    def __getitem__(self, index: int) -> tuple[Any, list[str]]:
        broken: list[str] = []
        for attempt in range(self.max_tries):
            chosen = index
            if attempt:
                digest = hashlib.sha256(f"{index}/{attempt}".encode()).digest()
                chosen = int.from_bytes(digest[:8], "big") % len(self.samples)
            try:
                return self.samples[chosen], broken
            except CorruptSample as error:
                if self.policy == "stop":
                    raise
                broken.append(str(error))
        raise CorruptSample(f"{self.max_tries} samples in a row cannot be read; {broken[-1]}")


class OrderedLoader(DataLoader):
    """Batches in the order of a `DataOrder`.

    `samples_consumed` counts samples handed to the loop, not those that workers read ahead.

    Args:
        on_corrupt: "stop" at the first unreadable sample, or "skip": replace and count it, and
            restart dead workers. Both keep the order of all other samples.

    Attributes:
        wait_s: seconds the loop spent waiting for batches so far.
        num_corrupt: samples replaced so far by this process.
    """

    def __init__(
        self,
        samples: Samples,
        order: DataOrder,
        collate: Callable[[list[Any]], Any],
        num_workers: int = 0,
        on_corrupt: str = "stop",
    ) -> None:
        super().__init__(
            Replacing(samples, on_corrupt),
            batch_sampler=order,
            collate_fn=_Collate(collate),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A separate generator: starting workers must not draw from the global one.
            generator=torch.Generator().manual_seed(order.seed),
            worker_init_fn=end_with_parent,
            # No `timeout`: with one, torch looks for dead workers only when it has passed; without,
            # every five seconds.
        )
        self.samples, self.order, self.on_corrupt = samples, order, on_corrupt
        self.collate = collate
        self.wait_s = 0.0
        self.num_corrupt = self.num_restarts = 0
        self._told: set[str] = set()

    def __iter__(self) -> Any:
        batches, restarts = self._fresh(), 0
        if ahead := getattr(self.samples, "far", False):
            self._prefetch(range(AHEAD))
        while True:
            began = time.perf_counter()
            try:
                pair = next(batches, None)
            except RuntimeError as error:
                restarts += 1
                self._worker_died(error, restarts)
                batches = self._fresh()
                continue
            self.wait_s += time.perf_counter() - began
            if pair is None:
                return
            batch, broken = pair
            restarts = 0
            self._count(broken)
            if ahead:
                self._prefetch([AHEAD])
            self.order.samples_consumed += self.order.global_batch
            yield batch

    def _prefetch(self, batches: Iterable[int]) -> None:
        """Let far samples come nearer: those of batches so many after the next one."""
        for later in batches:
            position = self.order.samples_consumed + later * self.order.global_batch
            if position < self.order.num_batches * self.order.global_batch:
                self.samples.prefetch(self.order.local_ids(position))  # type: ignore[attr-defined]

    def _fresh(self) -> Iterator[Any]:
        """New workers; the order continues after the last batch handed over."""
        self._iterator = None
        try:
            return super().__iter__()
        except OSError as error:
            raise TrainingFault(
                f"data workers could not be started ({error}); {cause_of(error)}"
            ) from error

    def _worker_died(self, error: RuntimeError, restarts: int) -> None:
        """Raise, unless the error is a dead worker that may be restarted."""
        if isinstance(error, TrainingFault) or "DataLoader worker" not in str(error):
            raise error
        self.num_restarts += 1
        message = (
            f"a data worker died after {self.order.samples_consumed} samples "
            f"({last_line(error)}); {cause_of(error)}"
        )
        if self.on_corrupt == "stop" or restarts > MAX_RESTARTS:
            raise TrainingFault(f"{message}, or data.on_corrupt=skip to start it anew") from error
        print(f"warning: {message}; starting it anew, no sample is lost")

    def _count(self, broken: list[str]) -> None:
        self.num_corrupt += len(broken)
        for message in broken:
            if message not in self._told:
                self._told.add(message)
                print(f"warning: replaced a sample: {message}")

    def state_dict(self) -> dict[str, int]:
        return {
            "samples_consumed": self.order.samples_consumed,
            "drawn_order": int(self.order.drawn),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.order.samples_consumed = state["samples_consumed"]
        self.order.drawn = bool(state.get("drawn_order", True))  # as all were before


def fixed_loader(
    samples: Samples,
    num_samples: int,
    batch_size: int,
    collate: Callable[[list[Any]], Any],
    on_corrupt: str = "stop",
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """A loader of fixed, evenly spaced samples, in order; every rank reads its share."""
    ids = np.array(spread(len(samples), num_samples))
    if len(ids) >= world_size:
        ids = ids[: len(ids) // world_size * world_size].reshape(-1, world_size)[:, rank]
    return listed_loader(samples, ids.tolist(), batch_size, collate, on_corrupt)


def listed_loader(
    samples: Samples,
    ids: Sequence[int],
    batch_size: int,
    collate: Callable[[list[Any]], Any],
    on_corrupt: str = "stop",
) -> DataLoader:
    """A loader of the samples with these ids, in order."""
    return DataLoader(
        Replacing(samples, on_corrupt),
        batch_sampler=[list(ids[i : i + batch_size]) for i in range(0, len(ids), batch_size)],
        collate_fn=_Bare(collate),
        generator=torch.Generator(),
    )


class _Bare:
    """Collates and drops the messages."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[Any, list[str]]]) -> Any:
        return self.collate([sample for sample, _ in items])


class _Collate:
    """Collates and keeps the messages; a class, because spawned workers pickle it."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[Any, list[str]]]) -> tuple[Any, list[str]]:
        samples, broken = zip(*items, strict=True)
        return shared(self.collate(list(samples))), [message for many in broken for message in many]
