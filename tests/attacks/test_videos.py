"""The same frames, encoded by many processes on a busy machine, decode to the same pixels."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from encoded_videos import contents

NUM_PROCESSES, EACH = 4, 100


@pytest.mark.attack
@pytest.mark.parametrize("size", [24, 32, 64, 96])
def test_many_encodes_beside_busy_loops_are_one_video(size: int, tmp_path: Path) -> None:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool:
            jobs = [(tmp_path, EACH, size, size)] * NUM_PROCESSES
            found = pool.starmap(contents, jobs)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert len(set().union(*found)) == 1
