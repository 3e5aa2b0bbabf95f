"""The number of threads follows what other processes leave free."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_gpt import make_clip, make_model

from training.errors import BadInput
from training.watch import free_threads
from training.watch.free_threads import FreeThreads, Reading, busy_seconds, threads_for
from worldmodel.decoding.rollout import open_decoder

QUOTA = free_threads._quota
STAT = """cpu  900 0 100 500 0 0 0 0 0 0
cpu0 700 50 50 100 9 20 30 50 7 0
cpu1 200 0 50 400 0 0 0 0 0 0
intr 12345 0 0"""


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(2)
    monkeypatch.setattr(free_threads, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(free_threads, "_quota", lambda: float("inf"))
    monkeypatch.setattr(free_threads, "EVERY_S", 0.0)
    free_threads._first_number.cache_clear()
    yield
    free_threads._first_number.cache_clear()


class Machine:
    """Two cores; `others` of them are taken, this process works on what is left."""

    def __init__(self) -> None:
        self.now, self.others = Reading(0.0, 0.0, 0.0), 0.0

    def read(self) -> Reading:
        wall, busy, own = self.now
        self.now = Reading(wall + 1, busy + 2, own + 2 - self.others)
        return self.now


def test_threads_come_and_go_with_the_load() -> None:
    machine = Machine()
    threads = FreeThreads(read=machine.read)
    seen = []
    for others in (0.0, 0.1, 0.7, 1.0, 2.0, 0.0):
        machine.others = others
        threads.settle()
        seen.append(torch.get_num_threads())
    assert seen == [2, 2, 1, 1, 1, 2]


def test_a_decoder_that_opens_on_a_busy_machine_gets_its_threads_later() -> None:
    machine = Machine()
    for others in (1.0, 0.0):
        threads = FreeThreads(read=machine.read)
        machine.others = others
        threads.settle()
    assert torch.get_num_threads() == 2


def test_others_leave_a_quota_alone_where_cores_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_threads, "usable_cores", lambda: set(range(8)))
    monkeypatch.setattr(free_threads, "_quota", lambda: 2.0)
    machine = Machine()
    threads = FreeThreads(read=machine.read)
    machine.others = 5.0
    threads.settle()
    assert torch.get_num_threads() == 2


def test_never_more_threads_than_there_were() -> None:
    assert [threads_for(free, 4) for free in (9.0, 4.0, 3.8, 3.5, 0.0)] == [4, 4, 4, 3, 1]


def test_nothing_is_read_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    threads = FreeThreads(read=machine.read)
    monkeypatch.setattr(free_threads, "EVERY_S", 60.0)
    machine.others = 1.0
    threads.settle()
    assert torch.get_num_threads() == 2
    assert machine.now.wall == 1


def test_time_counts_on_the_cores_that_this_process_may_use() -> None:
    tick = free_threads.os.sysconf("SC_CLK_TCK")
    assert busy_seconds(STAT.splitlines(), {0}) == (700 + 50 + 50 + 20 + 30 + 50) / tick
    assert busy_seconds(STAT.splitlines(), {1}) == 250 / tick


def test_a_quota_counts_as_cores_and_a_missing_file_as_none(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert QUOTA(tmp_path / "cpu.max") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert QUOTA(tmp_path / "cpu.max") == QUOTA(tmp_path / "none") == float("inf")
    assert free_threads.reading(tmp_path / "none") is None


def test_decoding_gives_a_core_up_in_the_middle_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("none")
    tokens, _ = make_clip(2)
    decoder = open_decoder(model, threads="free")
    machine = Machine()
    decoder.threads = FreeThreads(read=machine.read)
    counts: list[int] = []
    model_logits = type(model).logits

    def logits(self, x):
        counts.append(torch.get_num_threads())
        machine.others = 1.0 if len(counts) > 3 else 0.0
        return model_logits(self, x)

    monkeypatch.setattr(type(model), "logits", logits)
    decoder.start(tokens)
    frame = decoder.next_frame()
    assert counts[:3] == [2, 2, 2]
    assert counts[-3:] == [1, 1, 1]
    torch.set_num_threads(2)
    plain = open_decoder(model, threads="all")
    assert plain.threads is None
    plain.start(tokens)
    assert torch.equal(plain.next_frame(), frame)
    assert torch.get_num_threads() == 2


def test_another_word_is_refused() -> None:
    with pytest.raises(BadInput, match="threads='some': choose one of all, free"):
        open_decoder(make_model("none"), threads="some")
