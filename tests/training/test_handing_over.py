"""Batches arrive as they were sent; where shared memory is too small, data workers say so."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from killing import ROOT
from torch import Tensor

from training.handing_over import SMALL
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder

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


@pytest.mark.slow
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


@dataclass(frozen=True)
class Batch:
    tokens: Tensor
    actions: Tensor
    names: tuple[str, ...]


TOKENS = torch.arange(60).reshape(3, 4, 5)
KINDS = {
    "tokens": TOKENS,
    "negative": TOKENS - 7,
    "wide": TOKENS * 2**40,
    "halves": torch.rand(3, 2).bfloat16(),
    "flags": TOKENS > 9,
    "strided": torch.rand(4, 6).T[::2],
    "empty": torch.zeros(0, 2, dtype=torch.int64),
    "large": torch.rand(SMALL),
}


class Given:
    def __len__(self) -> int:
        return len(KINDS)

    def describe(self, index: int) -> dict[str, int]:
        return {"index": index}

    def __getitem__(self, index: int) -> Batch:
        name = list(KINDS)[index]
        return Batch(KINDS[name], torch.ones(2), (name,))


def first(batch: list[Batch]) -> Batch:
    return batch[0]


def test_every_kind_of_tensor_arrives_as_it_was_sent() -> None:
    order = DataOrder(len(KINDS), len(KINDS), 1, seed=0)
    found = {b.names[0]: b for b in OrderedLoader(Given(), order, first, num_workers=1)}
    assert found.keys() == KINDS.keys()
    for name, batch in found.items():
        assert torch.equal(batch.tokens, KINDS[name])
        assert batch.tokens.dtype == KINDS[name].dtype
        assert batch.tokens.is_shared() == (name in ("halves", "large"))
        batch.tokens.zero_()  # it can be written to
        assert torch.equal(batch.actions, torch.ones(2))
