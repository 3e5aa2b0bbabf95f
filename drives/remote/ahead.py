"""Work in the background that nobody waits for: it ends with the process, done or not."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from training.errors import BadInput


class Ahead:
    """A few daemon threads that do what was asked, the first first, and nothing twice at once."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads, self._owner = num_threads, 0
        self._queue: SimpleQueue[tuple[str, Callable[[], object]]] = SimpleQueue()
        self._asked: set[str] = set()

    def ask(self, name: str, work: Callable[[], object]) -> None:
        """Do some work soon, unless work of this name waits already."""
        if self._owner != os.getpid():  # threads do not live on in a forked process
            self._owner, self._queue, self._asked = os.getpid(), SimpleQueue(), set()
            for _ in range(self._num_threads):
                threading.Thread(target=self._run, args=(self._queue,), daemon=True).start()
        if name not in self._asked:
            self._asked.add(name)
            self._queue.put((name, work))

    def _run(self, queue: "SimpleQueue[tuple[str, Callable[[], object]]]") -> None:
        while True:
            name, work = queue.get()
            try:
                work()
            except (BadInput, OSError):
                continue  # what fails here fails again, and is told, where it is needed
            finally:
                self._asked.discard(name)
