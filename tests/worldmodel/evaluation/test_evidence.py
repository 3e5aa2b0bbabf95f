"""Which data a checkpoint is evaluated on, and how it is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drives.writing import write_drive
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.subject import Chosen, clips_of
from worldmodel.load import load_world_model
from worldmodel.windows import TokenWindows

OLD = Path(__file__).parents[2] / "training/old_checkpoints/schema-1"


def test_drives_give_the_columns_that_the_model_reads(tmp_path: Path) -> None:
    """A model that learned from a clock, which is no action by default any more, still opens."""
    names = ["timestamp", "steering", "throttle", "brake", "speed_mps"]
    rng = np.random.default_rng(0)
    frames, rows = rng.integers(0, 256, (6, 64, 64, 3), np.uint8), rng.random((6, 5))
    for split in ("train", "test"):
        write_drive(tmp_path / "drives" / split, frames, rows, names, {"fps": 10, "split": split})
    source = {"_target_": "DriveSource", "root": str(tmp_path / "drives")}
    data = {"tokenizer": "carracing", "encode": {"num_workers": 0}}
    data["source"] = {**source, "cache": str(tmp_path / "cache"), "actions": None}
    model = load_world_model(OLD)
    model = replace(
        model, action_names=tuple(names), manifest={**model.manifest, "config": {"data": data}}
    )
    assert evidence_of(model, {}, None).store.action_names == tuple(names)


def test_clips_of_a_later_phase_show_its_own_frames(tmp_path: Path) -> None:
    """The camera's frames are found by id and step, whichever frame the phase begins at."""
    frames = np.arange(24, dtype=np.uint8)[:, None, None, None] * np.full((64, 64, 3), 10, np.uint8)
    rows = np.arange(24.0)[:, None]
    for split in ("train", "test"):
        meta = {"fps": 10, "split": split}
        write_drive(tmp_path / "drives" / split, frames, rows, ["speed_mps"], meta)
    encode = {"num_workers": 0, "every": 2, "phases": "all"}
    source = {"_target_": "DriveSource", "root": str(tmp_path / "drives")}
    data = {"tokenizer": "carracing", "encode": encode}
    data["source"] = {**source, "cache": str(tmp_path / "cache")}
    model = load_world_model(OLD)
    config = {"config": {"data": data}}
    model = replace(model, action_names=("speed_mps",), manifest={**model.manifest, **config})
    evidence = evidence_of(model, {}, None)
    assert [drive.id for drive in evidence.drives] == ["test", "train", "train@1of2"]
    windows = TokenWindows(evidence.store.drives("train"), 4)
    late = [i for i in range(len(windows)) if windows.describe(i)["drive"] == "train@1of2"]
    assert len(late) == 12 - 3
    chosen = Chosen(windows, [0, late[3]])
    assert chosen.drives == ["train", "train"]
    clips = clips_of(evidence, chosen, 1, "cpu")
    shown = clips.frames.float().mean((2, 3, 4)) / 10
    assert shown.round().int().tolist() == [[0, 2, 4, 6], [7, 9, 11, 13]]
    assert clips.tokens.actions[1, :, 0].tolist() == [7.5, 9.5, 11.5, 13.5]
