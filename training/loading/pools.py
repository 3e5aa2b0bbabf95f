"""Worker processes that end with their parent process, even if it is killed.

Otherwise workers of a killed process would finish the queue and write to the files of the
restarted command.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from training.errors import TrainingFault

# Forking a process with threads can hang.
START_METHOD = "spawn"


def usable_cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # not every system tells


@contextmanager
def process_pool(
    num_workers: int, initializer: Callable[..., None] | None = None, *initargs: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end with this one; the end of the block waits for all work.

    An `Exception` in the block drops work that has not begun. Ctrl-C or a signal also drops work
    in progress.

    Raises:
        TrainingFault: a worker died, e.g. out of memory.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context(START_METHOD)
    pool = ProcessPoolExecutor(num_workers, context, _start, (initializer, initargs))
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool as error:
        raise TrainingFault(
            f"one of {num_workers} worker processes died ({error}); often it ran out of memory: "
            "use fewer workers"
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception):
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent(worker: int = 0) -> None:
    """End this worker process when its parent ends.

    Portable: the system closes the parent's end of a pipe at its death. (Linux's PR_SET_PDEATHSIG
    follows the starting thread instead, which may end much earlier.)

    Args:
        worker: number of the worker, passed by `DataLoader(worker_init_fn=...)`.
    """
    threading.Thread(target=_watch, name="parent", daemon=True).start()


def _start(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer is not None:
        initializer(*initargs)


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:  # no worker at all
        return
    # A forked sibling keeps the pipe open, so check the parent's process id too.
    while not wait([parent.sentinel], timeout=1.0) and os.getppid() == parent.pid:
        pass
    os._exit(1)
