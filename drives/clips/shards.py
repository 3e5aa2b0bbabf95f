"""Splits drives between several encoding processes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drives.drive import Drive
from training.errors import BadInput
from training.ranges import at_least, within


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal shares.

    Raises:
        BadInput: index outside 0 .. count - 1.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        at_least(1, num_shards=self.count)
        within(0, self.count - 1, shard=self.index)

    def take(self, drives: Sequence[Drive]) -> list[Drive]:
        """Drives of this shard; the longest are dealt first, so that shards end together.

        The result depends on all drives, not on the progress, so every process and restart sees the
        same shares.
        """
        longest_first = sorted(drives, key=lambda d: (-len(d.actions), d.id))
        return sorted(longest_first[self.index :: self.count], key=lambda d: d.id)


def find_shard(
    shard: int | None, num_shards: int | None, environment: Mapping[str, str] = os.environ
) -> Shard:
    """The given shard, else that of this Slurm array task and torchrun process, else all drives.

    Raises:
        BadInput: only one of the two numbers is given, or they are out of range.
    """
    if (shard is None) != (num_shards is None):
        raise BadInput(f"shard={shard} num_shards={num_shards}: give both, or neither")
    if shard is not None and num_shards is not None:
        return Shard(shard, num_shards)
    tasks, task = _array_task(environment)
    processes = int(environment.get("WORLD_SIZE", 1))
    return Shard(task * processes + int(environment.get("RANK", 0)), tasks * processes)


def _array_task(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of tasks of the Slurm array, and the index of this one from 0."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 1, 0
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
    place = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
    return int(environment.get("SLURM_ARRAY_TASK_COUNT", place + 1)), place
