"""Footage is compared by content: names and splits do not matter, overlaps do."""

import json
import shutil

import numpy as np
import pytest

from drives.drive import open_drive
from drives.splits.base import of_split, validates_on, while_training
from drives.splits.footage import Footage, shown_in, split_facts
from drives.writing import write_drive
from training.errors import BadInput


def shown(drive, split, content, licence="MIT"):
    return Footage(drive, split, content, licence)


@pytest.mark.parametrize(
    ("content", "found"),
    [("aa", True), ("aa:0-10", True), ("aa:10-20", False), ("aa:9-30", True), ("bb", False)],
)
def test_overlaps_are_found(content, found):
    assert shown_in([shown("x", "test", content)], ["aa:5-10", "cc"]) == (["x"] if found else [])


@pytest.mark.parametrize("entry", ["", "aa:", "aa:1", "aa:a-b", ":1-2"])
def test_what_is_no_entry_is_refused(entry):
    if entry == "aa:":
        assert shown_in([shown("x", "test", "aa")], [entry]) == ["x"]
        return
    with pytest.raises(BadInput, match="is no footage"):
        shown_in([shown("x", "test", "aa")], [entry])


def test_a_renamed_copy_in_another_split_is_the_same_footage(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    meta = {"fps": 10, "split": "train", "licence": "MIT"}
    write_drive(tmp_path / "a", frames, np.zeros((4, 1)), ["steering"], meta)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    meta = json.loads((tmp_path / "b/drive.json").read_text()) | {"split": "test", "note": "mine"}
    (tmp_path / "b/drive.json").write_text(json.dumps(meta))
    a, b = (open_drive(tmp_path / name) for name in "ab")
    assert a.digest != b.digest
    assert shown_in([b.footage], [a.footage.content]) == ["b"]
    assert b.footage.licence == "MIT"


def test_facts_change_with_a_split_and_not_with_a_name():
    drives = [shown("a", "train", "aa"), shown("b", "train", "bb", "CC0"), shown("c", "test", "cc")]
    facts = split_facts(drives)
    assert facts["num_drives"] == {"train": 2, "test": 1}
    assert facts["licences"] == {"CC0": 1, "MIT": 2}
    assert facts["train_footage"] == ["aa", "bb"]
    assert facts["validated_on"] == "test"
    renamed = [shown("z", one.split, one.content, one.licence) for one in drives]
    assert split_facts(renamed) == facts
    moved = [drives[0], shown("b", "val", "bb", "CC0"), drives[2]]
    assert split_facts(moved)["split_hash"] != facts["split_hash"]
    assert split_facts(moved)["validated_on"] == "val"


def test_only_the_validation_of_a_run_is_replaced_and_it_is_said(capsys):
    drives = [shown("a", "train", "aa"), shown("c", "test", "cc")]
    with pytest.raises(BadInput, match="no drive is in the val split, but 1 in train, 1 in test"):
        of_split(drives, "val", "here")
    assert while_training(drives, "val", "here") == drives[1:]
    assert "here: no drive is in the val split, the 1 of test stand in" in capsys.readouterr().out
    drives = [shown("a", "train", "aa"), shown("c", "val", "cc")]
    assert validates_on(drives) == "val"
    with pytest.raises(BadInput, match="no drive is in the test split"):
        while_training(drives, "test", "here")
