"""What a GPU has not done yet counts as time too; nothing waits on a CPU."""

import time
from types import SimpleNamespace

import pytest
import torch

from training.disk.status import read_status
from training.watch.clock import now
from training.watch.throughput import Throughput, Work

QUEUED_S = 0.05


@pytest.fixture
def queue(monkeypatch):
    """A GPU that has `queue.left` seconds to go, as the wait for it shows."""
    own = SimpleNamespace(left=0.0, waits=0)

    def wait(device=None) -> None:
        own.waits += 1
        time.sleep(own.left)
        own.left = 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    return own


def test_the_clock_is_read_when_a_gpu_is_done_and_at_once_on_a_cpu(queue) -> None:
    for device, waited in (("cpu", 0), ("cuda", 1), (torch.device("cuda", 0), 1)):
        queue.left, queue.waits = QUEUED_S, 0
        began = time.perf_counter()
        assert (now(device) - began >= QUEUED_S) == bool(waited)
        assert queue.waits == waited


def test_a_row_of_speeds_counts_the_work_that_is_still_queued(queue, tmp_path) -> None:
    throughput = Throughput(every_steps=2, folder=tmp_path)
    throughput._log = lambda trainer, module: None
    throughput._wait = lambda trainer: 0.0
    trainer = SimpleNamespace(is_global_zero=False, world_size=1, global_step=0)
    module = SimpleNamespace(
        device=torch.device("cuda"), accumulate=1, work=lambda batch: Work(1, 1, 1.0)
    )
    throughput.on_train_start(trainer, module)
    for step in range(1, 7):
        throughput.on_train_batch_start(trainer)
        queue.left += QUEUED_S  # the host goes on at once
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, module, None, None, step - 1)
    assert throughput.batches == 4
    assert throughput.seconds >= 4 * QUEUED_S
    assert queue.waits == 4  # two to warm up, and one for each of two rows


@pytest.mark.parametrize(("tell_s", "told"), [(0.0, True), (60.0, False)])
def test_a_run_that_is_killed_between_rows_has_told_how_long_it_trained(
    tell_s, told, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("training.watch.throughput.TELL_S", tell_s)
    trainer = SimpleNamespace(is_global_zero=True, world_size=1, global_step=0)
    module = SimpleNamespace(
        device=torch.device("cpu"), accumulate=1, work=lambda batch: Work(1, 1, 1.0)
    )

    def killed_after(steps: int) -> Throughput:
        throughput = Throughput(every_steps=100, folder=tmp_path)
        throughput._wait = lambda trainer: 0.0
        throughput.on_train_start(trainer, module)
        for trainer.global_step in range(1, steps + 1):
            throughput.on_train_batch_start(trainer)
            time.sleep(0.02)
            throughput.on_train_batch_end(trainer, module, None, None, trainer.global_step - 1)
        return throughput

    killed_after(5)
    assert (read_status(tmp_path).get("alive_s", 0.0) >= 0.1) == told
    assert (killed_after(1)._alive_before >= 0.1) == told  # its five steps are lost, not forgotten


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_products_on_a_gpu_take_their_time() -> None:
    a = torch.randn(8192, 8192, device="cuda")
    began = now("cuda")
    for _ in range(20):
        a @ a
    launched = time.perf_counter() - began
    assert now("cuda") - began > 2 * launched
