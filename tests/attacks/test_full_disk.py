"""A disk that fills up under a run, alone and with two processes; it is a real one of 5 MB."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.checkpoints.folder import check_whole, newest_first
from training.disk.status import read_status

pytestmark = [pytest.mark.attack, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent.parent
STEPS = 30
COMMON = (
    "+experiment=gpt_tiny",
    "+debug=fast",
    "callbacks.media=null",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    "trainer.accelerator=cpu",
    "checkpoints.every_steps=2",
    "checkpoints.keep=null",
    "max_passes=null",
    "logger=none",
)
ONE = ("trainer.devices=1", "data.batch_size=4")
TWO = ("trainer.devices=2", "data.batch_size=2")
WAYS = {
    "alone": ONE,
    "in the background": (*ONE, "checkpoints.background=true"),
    "ddp": (*TWO, "trainer=ddp"),
    "fsdp": (*TWO, "trainer=fsdp"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_until_its_last_save(small_disk, data_folder, way):
    run = small_disk / "run"
    command = [sys.executable, "train.py", *COMMON, *WAYS[way], f"run={run}"]

    def start():
        return subprocess.run(
            [*command, f"paths.data={data_folder}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=400,
        )

    done = start()
    print(done.stdout[-3000:], done.stderr[-3000:])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    assert all(f"step-{STEPS:07d}: could not be written" in line for line in errors)
    lost = done.stdout.count("training goes on")
    saved = newest_first(run)
    assert lost >= 2
    assert len(saved) >= 2
    for folder in saved:
        check_whole(folder)
    assert list((run / "checkpoints").glob(".*")) == []
    assert read_status(run)["state"] == "failed"
    for folder in saved[1:]:
        shutil.rmtree(folder)
    command.append("checkpoints.keep=2")
    done = start()
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_status(run)["state"] == "finished"
    check_whole(run / f"checkpoints/step-{STEPS:07d}")
    print(f"{way}: {len(saved)} saved, {lost} lost and named, finished once there was room")
