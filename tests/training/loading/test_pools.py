"""Worker processes end with their parent, and what it leaves does not stand in the way."""

import multiprocessing
import os
import time
from contextlib import suppress

import pytest
from killing import descendants, kill, start, survivors, until

from training.errors import TrainingFault
from training.loading.pools import process_pool

# Each worker works for a minute, and there is more in the queue.
BUSY = """
import sys, time
from pathlib import Path
from training.loading.pools import process_pool

def work(path):
    for n in range(600):
        Path(path).write_text(str(n))
        time.sleep(0.1)

if __name__ == "__main__":
    with process_pool(2) as pool:
        list(pool.map(work, [f"{sys.argv[1]}/{i}" for i in range(8)]))
"""


@pytest.fixture
def busy(tmp_path):
    """A process with two busy workers, and the folder that they write into."""
    script, out = tmp_path / "busy.py", tmp_path / "out"
    script.write_text(BUSY)
    out.mkdir()
    process = start([str(script), str(out)])
    until(lambda: len(list(out.iterdir())) == 2, process)
    return process, out


def test_workers_of_a_killed_process_end_with_it(busy):
    process, out = busy
    assert len(descendants(process.pid)) >= 2
    assert survivors(kill(process)) == []
    assert len(list(out.iterdir())) == 2  # what was queued is not begun


def test_a_worker_that_dies_is_named():
    with pytest.raises(TrainingFault, match="use fewer workers"), process_pool(1) as pool:
        pool.submit(os._exit, 9).result()


def test_who_is_told_to_leave_does_not_wait_for_workers():
    began = time.monotonic()
    with suppress(KeyboardInterrupt), process_pool(1) as pool:
        pool.submit(time.sleep, 0).result()  # it has started
        pool.submit(time.sleep, 60)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []
