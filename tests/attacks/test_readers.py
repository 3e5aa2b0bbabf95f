"""Fuzzed files, 4,600 for each reader: the same content or BadInput, and nothing else.

`pytest -m attack tests/attacks/test_readers.py -s` prints a table. A video is decoded for each
input, so of those there are 1,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks.fuzzed import READERS

COUNT, COUNT_VIDEO = 4600, 1000
TESTS = Path(__file__).parent.parent


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", READERS)
def test_a_fuzzed_file_is_refused_or_the_same(name: str, tmp_path: Path) -> None:
    count = COUNT_VIDEO if "video" in name else COUNT
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "attacks.fuzzed", name, str(count), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    # A crash or a hang: last.bin is what it was made by.
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    found, shown = result["outcomes"], ", ".join(f"{k} {v}" for k, v in result["outcomes"].items())
    print(f"\n{name}: {count} of {result['bytes']} bytes: {shown}; {result['peak_mb']} MB")
    assert not result["wrong"], result["wrong"]
    assert found.keys() <= {"same", "refused", *(() if READERS[name].recorded else ("other",))}
    assert result["fewer"] == 0
