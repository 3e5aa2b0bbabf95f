"""Pictures never end a run: what they lack is a warning, and a bug is still seen."""

import tempfile
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from training.watch.media import Media


class FullDisk(L.Callback):
    """Temporary files go to a disk without room in the first two steps."""

    def __init__(self, folder, monkeypatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def on_train_batch_start(self, trainer, *args) -> None:
        place = str(self.folder) if trainer.global_step == 1 else None
        self.monkeypatch.setattr(tempfile, "tempdir", place)


@pytest.fixture
def full_disk(small_disk):
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "all").write_bytes(bytes(2**23))
    return small_disk


@pytest.mark.slow
def test_rollouts_of_short_drives_on_a_full_disk_do_not_end_the_run(
    composed, fit, full_disk, monkeypatch, capsys
):
    short = (
        "data.source.carracing.seconds=1.1",
        "callbacks.media.horizon_steps=10",
        "callbacks.media.every_steps=2",
    )
    cfg = composed("gpt_tiny", "+debug=fast", *short, "trainer.max_steps=4")
    _, run, trainer = fit(cfg, FullDisk(full_disk, monkeypatch))
    said = capsys.readouterr().out
    assert trainer.global_step == 4
    assert said.count("callbacks.media.horizon_steps=10 need 12: pictures show 9 steps ahead") == 1
    assert said.count("warning: no pictures of step 2: [Errno 28] No space left on device") == 1
    folders = [path.name for path in (run.folder / "media").iterdir()]
    assert folders == ["step-0000004"]
    assert len(list((run.folder / "media/step-0000004").iterdir())) == 3


class Drawing(Media):
    def __init__(self, error: Exception | None) -> None:
        super().__init__(every_steps=1)
        self.error = error

    def network(self, trainer, module):
        return module.network

    def draw(self, trainer, module, network) -> None:
        assert not any(part.training for part in network.modules())
        if self.error is not None:
            raise self.error


def test_a_bug_is_seen_and_a_network_is_left_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1).eval())
    trainer = SimpleNamespace(global_step=1, is_global_zero=True)
    module = SimpleNamespace(network=network, accumulate=1)
    Drawing(None).on_train_batch_end(trainer, module, 0)
    Drawing(torch.OutOfMemoryError("4 GiB")).on_train_batch_end(trainer, module, 0)
    with pytest.raises(IndexError):
        Drawing(IndexError("a bug")).on_train_batch_end(trainer, module, 0)
    assert [part.training for part in network.modules()] == [True, True, False]
