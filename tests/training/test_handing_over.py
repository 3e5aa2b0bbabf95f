"""Where shared memory is too small, data workers say so, instead of letting the loop wait."""

import shutil
import subprocess
import sys

import pytest
from killing import ROOT

LOOP = """
import torch
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder

class Samples:
    def __len__(self): return 64
    def describe(self, index): return {}
    def __getitem__(self, index): return torch.zeros(200_000)

if __name__ == "__main__":
    loader = OrderedLoader(Samples(), DataOrder(64, 8, 8, 0), torch.stack, num_workers=2)
    print(sum(1 for _ in loader), "batches")
"""


def run(size: str) -> subprocess.CompletedProcess[str]:
    """The loop, with a /dev/shm of its own of this size."""
    inside = 'mount -t tmpfs -o size="$1" tmpfs /dev/shm && exec "$2" -c "$3"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", inside, "sh", size, sys.executable, LOOP],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare on this system")
def test_a_small_shared_memory_is_named():
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of its own needs more rights than this user has")
    small = run("2m")
    assert small.returncode == 1
    last = small.stderr.strip().splitlines()[-1]
    assert "/dev/shm is too small for their batches (2 MiB" in last, small.stderr
    assert "--shm-size" in last
    assert run("64m").stdout == "8 batches\n"
