"""As many threads as other processes leave cores, on a machine that is shared.

Every small operation ends at a barrier, where all threads wait for the last one. If other processes
take one of two cores, the second thread often does not run, and two threads are many times slower
than one.
"""

import os
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from training.loading.pools import usable_cores

# Seconds between two looks: the system counts in hundredths of a second.
EVERY_S = 0.25
# Share of a core that others may take before this process gives it up.
TOLERATED = 0.25


class Reading(NamedTuple):
    """Seconds counted since some moment in the past.

    Attributes:
        wall: of the clock.
        busy: of all processes, on the cores that this one may use.
        own: of this process.
    """

    wall: float
    busy: float
    own: float


def reading(stat: Path = Path("/proc/stat")) -> Reading | None:
    """What the system counts now; None where it has no such file."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    return Reading(time.monotonic(), busy_seconds(lines, usable_cores()), time.process_time())


class FreeThreads:
    """Sets torch's number of threads to what other processes leave free.

    Args:
        most: threads where nothing else runs; None: those that torch had before the first look.
        read: what the system counts; on other systems than Linux there is nothing to read, and
            the number of threads stays.
    """

    def __init__(
        self, most: int | None = None, read: Callable[[], Reading | None] = reading
    ) -> None:
        self.most = most or _first_number()
        self.cores, self.quota = len(usable_cores()), _quota()
        self.read = read
        self.last, self.looked = self.read(), time.monotonic()

    def settle(self) -> None:
        """Look again, if the last look is long enough ago."""
        if self.last is None or time.monotonic() - self.looked < EVERY_S:
            return
        last, now = self.last, self.read()
        if now is None or now.wall <= last.wall:
            return
        self.last, self.looked = now, time.monotonic()
        others = (now.busy - last.busy - (now.own - last.own)) / (now.wall - last.wall)
        # Others count on all cores; a quota is this process's own.
        free = min(self.cores - max(0.0, others), self.quota)
        count = threads_for(free, self.most)
        if count != torch.get_num_threads():
            torch.set_num_threads(count)


@cache
def _first_number() -> int:
    """Of torch's threads, before any of these objects changed it."""
    return torch.get_num_threads()


def threads_for(free: float, most: int) -> int:
    """Threads for this many free cores: 1 to `most`."""
    return max(1, min(most, int(free + TOLERATED)))


def busy_seconds(lines: Iterable[str], cores: set[int]) -> float:
    """Seconds in which these cores worked, from the lines of /proc/stat (proc(5))."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in lines:
        name, *counted = line.split()
        if name in names:
            user, nice, system, _, _, irq, softirq, *rest = map(int, counted)
            ticks += user + nice + system + irq + softirq + sum(rest[:1])  # stolen by the host
    return ticks / os.sysconf("SC_CLK_TCK")


def _quota(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Cores that the cgroup of this process may take; infinity for any number."""
    try:
        quota, period = limits.read_text().split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if quota == "max" else int(quota) / int(period)
