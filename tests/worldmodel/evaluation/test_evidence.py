"""Which data a checkpoint is evaluated on, and how it is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drives.writing import write_drive
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.load import load_world_model

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
