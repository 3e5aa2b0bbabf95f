"""A run that goes on reads the data that it began with, or says what changed and stops."""

import json
import shutil

import numpy as np
import pytest

from drives.writing import write_drive
from training.checkpoints.same_data import FILE, judge_data, write_digests
from training.errors import BadInput
from training.run import build_data, open_run

CUT = ("+debug=fast", "callbacks.media=null", "data.frames=video", "checkpoints.every_steps=1")


class Data:
    def __init__(self, **digests):
        self.digests = digests

    @property
    def data_hash(self):
        return json.dumps(self.digests)

    def data_digests(self):
        return self.digests


def facts(data):
    return {"data_hash": data.data_hash, "data_hash_by": "content"}


@pytest.fixture
def drives(tmp_path):
    rng = np.random.default_rng(0)
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        frames = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
        meta = {"fps": 10, "split": split}
        write_drive(tmp_path / "drives" / name, frames, np.zeros((12, 1)), ["steering"], meta)
    return tmp_path / "drives"


@pytest.fixture
def on_drives(composed, tmp_path):
    def config(steps, root, *more):
        cut = (*CUT, f"data.root={root}", f"trainer.max_steps={steps}", f"run={tmp_path}/run")
        return composed("tokenizer_tiny", *cut, *more)

    return config


@pytest.mark.slow
def test_a_run_whose_drive_is_gone_refuses_and_a_moved_folder_goes_on(
    on_drives, drives, fit, tmp_path, capsys
):
    fit(on_drives(1, drives))
    moved = tmp_path / "elsewhere"
    shutil.copytree(drives, moved, copy_function=shutil.copy)
    cfg = on_drives(2, moved)
    judge_data(tmp_path / "run", open_run(cfg).resumed["run"], build_data(cfg), other_data=False)
    assert f"changed since: data.root {drives} -> {moved}" in capsys.readouterr().out
    shutil.rmtree(moved / "b")
    before = (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(BadInput, match=r"run: its run was trained on other data \(b gone\)"):
        fit(on_drives(2, moved))
    assert (tmp_path / "run/run.json").read_bytes() == before


@pytest.mark.slow
def test_other_data_is_gone_on_with_where_that_is_asked_for(
    on_drives, drives, fit, tmp_path, capsys
):
    fit(on_drives(1, drives))
    shutil.rmtree(drives / "b")
    assert fit(on_drives(2, drives, "other_data=true"))[2].global_step == 2
    assert "the data is not what the run began with (b gone)" in capsys.readouterr().out
    assert fit(on_drives(3, drives))[2].global_step == 3, "from then on it is the run's data"


def test_what_changed_is_named_a_few_of_each_kind(tmp_path):
    before = Data(a="1", b="1", **{f"old{i}": "1" for i in range(5)})
    write_digests(tmp_path, before)
    now = Data(a="1", b="2", new="1")
    words = r"old0, old1, old2 and 2 more gone, new new, b changed"
    with pytest.raises(BadInput, match=words):
        judge_data(tmp_path, facts(before), now, other_data=False)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(BadInput, match=r"no data\.json there says which drives"):
        judge_data(tmp_path, facts(before), now, other_data=False)


def test_runs_of_before_go_on_with_a_note(tmp_path, capsys):
    judge_data(tmp_path, {"data_hash": "of dates"}, Data(a="1"), other_data=False)
    assert "a release that compared no data" in capsys.readouterr().out
