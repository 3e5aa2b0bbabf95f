"""What breaks is named, kept, counted, and where allowed passed over; nothing else changes."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch.utils.data import Dataset

from training.checkpoints.folder import newest_first, read_weights
from training.disk.status import read_status
from training.errors import BadInput, CorruptSample, TrainingFault
from training.loading.loader import OrderedLoader, Replacing
from training.loading.order import DataOrder
from training.watch.gradients import NonFinite
from worldmodel.known_entropy.world import KnownEntropyWorld

TINY = (
    "callbacks.media=null",
    "model.network.dim=24",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "data.batch_size=2",
    "trainer.max_steps=6",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=1",
)


@pytest.fixture
def on_known_world(composed, tmp_path):
    """`on_known_world(*overrides)`: the config of a tiny run on a store of its own."""
    KnownEntropyWorld().write_store(tmp_path / "store", num_train=3, num_test=1, steps=40, seed=0)

    def make(*overrides: str):
        root = f"data.root={tmp_path}/store"
        return composed("gpt_tiny", "data=tokens", root, *TINY, *overrides)

    return make


@pytest.fixture
def spoiled(monkeypatch):
    """`spoiled(steps)`: the loss of these global steps is NaN."""
    from worldmodel.module import WorldModelModule

    def spoil(*steps: int) -> None:
        honest = WorldModelModule.training_step

        def dishonest(self, batch, batch_idx):
            with monkeypatch.context() as patch:
                if self.global_step in steps:
                    loss = self.network.loss
                    patch.setattr(self.network, "loss", lambda *a, **k: loss(*a, **k) * math.nan)
                return honest(self, batch, batch_idx)

        monkeypatch.setattr(WorldModelModule, "training_step", dishonest)

    return spoil


def test_a_nan_stops_the_run_names_its_samples_and_keeps_them(on_known_world, fit, spoiled):
    spoiled(3)
    cfg = on_known_world()
    with pytest.raises(NonFinite, match=r"step 3: .*drive train_.* steps \[\d+, \d+\].*kept in"):
        fit(cfg)
    folder = newest_first(Path(cfg.run))[0].parent.parent
    assert newest_first(folder)[0].name == "step-0000003"  # the one before it is whole
    status = read_status(folder)
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert "step 3" in status["reason"]
    kept = folder / "faults/step-0000003"
    names = json.loads((kept / "batch.json").read_text())
    tokens = load_file(kept / "batch.safetensors")["tokens"]
    assert len(names) == len(tokens) == cfg.data.batch_size
    from training.run import build_data

    windows = build_data(cfg).dataset("train")
    for name, window in zip(names, tokens, strict=True):
        assert np.array_equal(windows[name["id"]][0], window)
        assert windows.describe(name["id"])["drive"] == name["drive"]


def test_weights_that_are_not_finite_are_neither_saved_nor_called_finished(on_known_world, fit):
    """A healthy loss, and a last step that spoils every matrix."""

    class Overflow(Callback):
        """No setting is judged legal that decays so hard."""

        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            for group in trainer.optimizers[0].param_groups:
                group["weight_decay"] = 1e38

    names = ("trainer.max_steps=1", "trainer.val_check_interval=1", "optimizer.lr=9")
    cfg = on_known_world(*names)
    with pytest.raises(TrainingFault, match=r"after step 1 .* parameters are not finite"):
        fit(cfg, Overflow())
    assert newest_first(Path(cfg.run)) == []
    assert read_status(Path(cfg.run))["state"] == "failed"


def test_a_nan_that_may_pass_changes_nothing_but_its_own_step(on_known_world, fit, spoiled):
    spoiled(3)
    cfg = on_known_world("max_skipped_steps=1", "checkpoints.keep=9")
    _, run, trainer = fit(cfg)
    assert trainer.global_step == 6
    steps = {int(p.name[-7:]): read_weights(p) for p in newest_first(run.folder)}
    for name, before in steps[3].items():
        assert torch.equal(before, steps[4][name])
    assert any(not torch.equal(steps[4][name], steps[5][name]) for name in steps[4])
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("train/skipped_steps") == 1] == [3]


def test_as_many_in_a_row_as_allowed_and_one_more(on_known_world, fit, spoiled):
    spoiled(2, 3, 4)
    with pytest.raises(NonFinite, match=r"step 4: .*3 in a row"):
        fit(on_known_world("max_skipped_steps=2"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_in_a_shard_stops_or_is_replaced(on_known_world, fit, tmp_path, capsys):
    flip(tmp_path / "store/train_0001.arrow")
    with pytest.raises(BadInput, match=r"train_0001.arrow: altered"):
        fit(on_known_world())
    _, run, trainer = fit(on_known_world("data.on_corrupt=skip", "trainer.max_steps=30"))
    loader = trainer.train_dataloader
    windows = trainer.datamodule.dataset("train")
    ids = [i for n in range(30) for i in loader.order.global_ids(n)]
    broken = [i for i in ids if windows.describe(i)["drive"] == "train_0001"]
    assert loader.num_corrupt >= len(broken) > 0
    assert "replaced a sample: drive train_0001" in capsys.readouterr().out
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    counts = [row["data/corrupt_samples"] for row in rows if "data/corrupt_samples" in row]
    assert counts[-1] == loader.num_corrupt


class Numbers(Dataset):
    """Sample i is i; some cannot be read, and one kills its worker the first time."""

    def __init__(self, broken=(), deadly=None, marker=None):
        self.broken, self.deadly, self.marker = set(broken), deadly, marker

    def __len__(self):
        return 50

    def __getitem__(self, index):
        if index in self.broken:
            raise CorruptSample(f"number {index} is unreadable")
        if index == self.deadly and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    def describe(self, index):
        return {"number": index}


def batches(samples, workers=0, policy="stop", num=20):
    order = DataOrder(len(samples), num, 4, seed=1)
    loader = OrderedLoader(samples, order, list, workers, policy)
    return [list(batch) for batch in loader], loader


def flat(many):
    return [sample for batch in many for sample in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replacement_is_a_function_of_the_id_alone(workers):
    whole, _ = batches(Numbers())
    patched, loader = batches(Numbers(broken={3, 17}), workers, "skip")
    for old, new in zip(flat(whole), flat(patched), strict=True):
        assert (new == old) == (old not in {3, 17})
    assert loader.num_corrupt == sum(x in {3, 17} for x in flat(whole))
    again, _ = batches(Numbers(broken={3, 17}), 0, "skip")
    assert again == patched


def test_by_default_an_unreadable_sample_stops(tmp_path):
    with pytest.raises(CorruptSample, match="number 3 is unreadable"):
        batches(Numbers(broken={3}))
    with pytest.raises(CorruptSample, match="in a row cannot be read"):
        Replacing(Numbers(broken=range(50)), "skip")[0]
    with pytest.raises(BadInput, match="on_corrupt='ignore'"):
        batches(Numbers(), policy="ignore")


@pytest.mark.slow
def test_a_dead_worker_is_named_or_started_anew_without_losing_a_sample(tmp_path):
    whole, _ = batches(Numbers())
    with pytest.raises(TrainingFault, match=r"worker died after \d+ samples"):
        batches(Numbers(deadly=whole[9][2], marker=tmp_path / "first"), 2)
    alive, loader = batches(Numbers(deadly=whole[9][2], marker=tmp_path / "second"), 2, "skip")
    assert alive == whole
    assert loader.num_restarts == 1
