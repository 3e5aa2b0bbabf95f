"""Fuzzed files, 1,000 to 4,600 for each reader: the same content or BadInput, and nothing else.

`pytest -m attack tests/attacks/test_readers.py -s` prints a table.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks.fuzzed import READERS, mutations

TESTS = Path(__file__).parent.parent


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", READERS)
def test_a_fuzzed_file_is_refused_or_the_same(name: str, tmp_path: Path) -> None:
    count = READERS[name].count
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


def test_a_file_of_zeros_and_an_empty_one_have_mutations() -> None:
    for whole in (bytes(50), b"", b"\0"):
        made = [data for _, data in mutations(whole, 40, seed=0)]
        assert len(made) == 40
        assert whole not in made
