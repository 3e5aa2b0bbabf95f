"""A signal before the first step: the run leaves in good order, and the same command goes on."""

import os
import signal

import pytest
from killing import ROOT, descendants, finish, start, survivors, until
from omegaconf import OmegaConf

from training.disk.folders import lock_folder
from training.disk.status import STOPPED, read_status, write_status
from training.stopping import SIGNALS, in_good_order

FEW = (
    "data.source.carracing.num_train=8",
    "data.source.carracing.num_val=1",
    "data.source.carracing.num_test=1",
)
RUN = (
    "+experiment=gpt_tiny",
    "+debug=fast",
    *FEW,
    "callbacks.media=null",
    "trainer.max_steps=1",
    "trainer.val_check_interval=1",
    "max_passes=null",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "logger=none",
)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_is_before_training(number, tmp_path, capsys):
    cfg = OmegaConf.create({"run": str(tmp_path / "run"), "requeue": True})
    before = signal.getsignal(number)
    cleaned = []

    def told() -> None:
        with in_good_order(cfg):
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # cleaning up is not disturbed
                cleaned.append(True)

    with pytest.raises(SystemExit) as end:
        told()
    assert cleaned == [True]
    assert end.value.code == STOPPED
    status = read_status(tmp_path / "run")
    assert (status["state"], status["exit_code"]) == ("stopped", STOPPED)
    assert f"stopped by {signal.Signals(number).name}" in capsys.readouterr().out
    assert signal.getsignal(number) == before


def test_slurm_starts_a_job_again_that_was_told_before_training(tmp_path, monkeypatch, capsys):
    asked = tmp_path / "asked"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    cfg = OmegaConf.create({"run": str(tmp_path / "run"), "requeue": True})
    with pytest.raises(SystemExit), in_good_order(cfg):
        os.kill(os.getpid(), signal.SIGUSR2)
    assert asked.read_text() == "requeue 77\n"
    assert "to be requeued" in read_status(tmp_path / "run")["reason"]


def test_a_run_that_another_process_trains_keeps_its_status(tmp_path):
    run = tmp_path / "run"
    write_status(run, state="running")
    holder = start(
        [
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from training.disk.folders import lock_folder\n"
            "lock = lock_folder(Path(sys.argv[1]), 'trains'); print('held', flush=True)\n"
            "time.sleep(60)",
            str(run),
        ]
    )
    assert holder.stdout.readline() == "held\n"
    cfg = OmegaConf.create({"run": str(run), "requeue": True})
    with pytest.raises(SystemExit), in_good_order(cfg):
        os.kill(os.getpid(), signal.SIGTERM)
    assert read_status(run)["state"] == "running"
    holder.kill()
    holder.wait()
    lock = lock_folder(run, "trains")
    with pytest.raises(SystemExit), in_good_order(cfg):
        os.kill(os.getpid(), signal.SIGTERM)
    assert read_status(run)["state"] == "stopped"
    lock.release()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_stopped_while_its_data_is_made_goes_on(number, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    command = [str(ROOT / "train.py"), *RUN, f"run={run}", f"paths.data={data}"]
    process = start(command)
    until(lambda: list(data.rglob(".*.partial")), process)
    below = descendants(process.pid)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED, output
    assert "Traceback" not in output
    status = read_status(run)
    assert (status["state"], status["exit_code"]) == ("stopped", STOPPED)
    assert survivors(below) == []
    finish(start(command))
    assert read_status(run)["state"] == "finished"
    assert list(data.rglob(".*.partial")) == []
