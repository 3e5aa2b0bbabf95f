"""Worker processes: they end when the process that started them ends, even if it is killed.

Without that, workers of a killed process go on through what is queued and write where the same
command, started again, writes too.
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


@contextmanager
def process_pool(
    num_workers: int, initializer: Callable[..., None] | None = None, *initargs: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end with this one; at the end of the block all work is done.

    Where the block raises, work that has not begun is dropped. Where it is told to leave (Ctrl-C,
    a signal: no `Exception`), work that has begun is dropped too.

    Raises:
        TrainingFault: a worker died, as one does that runs out of memory.
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
    """End this worker process as soon as the one that started it has ended.

    Portable: the system closes the parent's end of a pipe, whatever it dies of. (PR_SET_PDEATHSIG
    of Linux follows the thread that started the worker instead, which may end long before.)

    Args:
        worker: its number, which `DataLoader(worker_init_fn=...)` passes along.
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
    # A forked sibling holds the pipe open as well: so ask for the parent's number, too.
    while not wait([parent.sentinel], timeout=1.0) and os.getppid() == parent.pid:
        pass
    os._exit(1)
