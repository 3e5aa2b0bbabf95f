"""Which drives one of several encoding processes takes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drives.drive import Drive
from training.errors import BadInput


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal ones.

    Raises:
        BadInput: index outside 0 .. count - 1.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise BadInput(
                f"shard={self.index} num_shards={self.count}: shards are numbered 0 to "
                "num_shards - 1"
            )

    def take(self, drives: Sequence[Drive]) -> list[Drive]:
        """Its drives by id; the longest are dealt out first, so that shards end together.

        It depends on all drives and never on what is encoded already: every process, and every
        restart of it, sees the same shares.
        """
        longest_first = sorted(drives, key=lambda d: (-len(d.actions), d.id))
        return sorted(longest_first[self.index :: self.count], key=lambda d: d.id)


def find_shard(
    shard: int | None, num_shards: int | None, environment: Mapping[str, str] = os.environ
) -> Shard:
    """The shard asked for, or that of this Slurm array task and torchrun process; else all.

    Raises:
        BadInput: only one of the two is given, or they are out of range.
    """
    if (shard is None) != (num_shards is None):
        raise BadInput(f"shard={shard} num_shards={num_shards}: give both, or neither")
    if shard is not None and num_shards is not None:
        return Shard(shard, num_shards)
    tasks, task = _array_task(environment)
    processes = int(environment.get("WORLD_SIZE", 1))
    return Shard(task * processes + int(environment.get("RANK", 0)), tasks * processes)


def _array_task(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of tasks of the Slurm array, and which of them this is, counted from 0."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 1, 0
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0))
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
    place = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
    return int(environment.get("SLURM_ARRAY_TASK_COUNT", place + 1)), place
