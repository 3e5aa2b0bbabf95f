"""A run whose actions held a clock goes on, though clocks are no actions by default any more."""

import numpy as np
import pytest

from drives import sources
from drives.writing import write_drive

NAMES = ["timestamp", "steering"]


@pytest.mark.slow
def test_a_run_goes_on_with_its_columns(composed, fit, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        frames, rows = rng.integers(0, 256, (24, 64, 64, 3), np.uint8), rng.random((24, 2))
        write_drive(tmp_path / "drives" / split, frames, rows, NAMES, {"fps": 10, "split": split})

    def train(steps):
        words = [f"run={tmp_path}/run", f"data.root={tmp_path}/drives", "callbacks.media=null"]
        words += ["+debug=fast", "checkpoints.every_steps=1", f"trainer.max_steps={steps}"]
        module, run, trainer = fit(composed("gpt_tiny", *words, "data.duplicates=off"))
        assert module.manifest["action_names"] == NAMES
        assert run.config["data"]["source"]["actions"] is None
        assert trainer.global_step == steps

    with monkeypatch.context() as before:
        before.setattr(sources, "is_action", lambda name: True)
        train(1)
    train(2)
    train(3)
