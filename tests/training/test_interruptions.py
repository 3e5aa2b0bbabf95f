"""Killed anywhere and started again: the run that was left alone, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoints import newest_first, read_manifest, read_state, read_weights
from training.status import STOPPED, read_status

ROOT = Path(__file__).parent.parent.parent
WORLD = (
    "+experiment=gpt_tiny",
    "+debug=worldmodel",
    "media=none",
    "model.network.dim=24",
    "model.network.num_layers=1",
    "optimizer.warmup_steps=5",
)
TOKENIZER = (
    "+experiment=tokenizer_tiny",
    "+debug=tokenizer",
    "media=none",
    "model.autoencoder.channels=[8,16]",
    "model.loss.perceptual_net=''",
    "model.loss.gan_start=20",
    "model.loss.discriminator_channels=8",
)
# Draws, counts and running means all the way: more state than any other quantizer has.
CODEBOOK = ("quantizer=vq", "quantizer.vocab_size=64", "quantizer.dead_below=0.5")
STEPS = 60
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    f"trainer.val_check_interval={STEPS}",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "checkpoints.every_steps=4",
    "max_passes=null",
    "logger.wandb=false",
)


def start(run, data, *overrides) -> subprocess.Popen:
    command = [sys.executable, "train.py", *overrides, *COMMON, f"run={run}", f"paths.data={data}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(run) -> list[dict]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def interrupt(process, run, step, number) -> tuple[int, str]:
    """Send a signal once the run has logged `step`; its exit code and what it printed."""
    deadline, known = time.monotonic() + 120, len(rows(run))
    while not any(row["step"] >= step for row in rows(run)[known:]):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.send_signal(number)  # a second one does no harm
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def losses(run) -> dict[int, dict]:
    """What was logged for every step, the last time that it was taken."""
    return {
        row["step"]: {key: value for key, value in row.items() if key.startswith("train/")}
        for row in rows(run)
        if "train/loss" in row
    }


def assert_same(a, b, path=""):
    """Deeply, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        assert a == b, path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "recipe",
    [
        WORLD,
        (*WORLD, "loader.num_workers=2", "trainer.accumulate_grad_batches=2"),
        (*TOKENIZER, *CODEBOOK, "trainer.accumulate_grad_batches=2", "checkpoints.background=true"),
    ],
    ids=["gpt", "gpt-workers-accumulated", "tokenizer-accumulated-background"],
)
def test_a_run_killed_four_times_is_the_run_left_alone(recipe, tmp_path, data_folder):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    process = start(alone, data_folder, *recipe)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    at = sorted(random.Random(seed).sample(range(5, STEPS - 8), 4))
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2]
    for step, number in zip(at, kinds, strict=True):
        code, output = interrupt(start(killed, data_folder, *recipe), killed, step, number)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
            assert read_status(killed)["state"] == "running"
        else:
            assert code == STOPPED, output
            status = read_status(killed)
            assert (status["state"], status["exit_code"]) == ("stopped", STOPPED)
            saved = newest_first(killed)[0]
            assert read_manifest(saved)["step"] == status["step"] >= step
    process = start(killed, data_folder, *recipe)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert read_status(killed)["attempts"] == 5
    assert losses(killed) == losses(alone)
    one, two = newest_first(alone)[0], newest_first(killed)[0]
    assert one.name == two.name == f"step-{STEPS:07d}"
    assert_same(read_weights(one), read_weights(two))
    states = [read_state(path) for path in (one, two)]
    for state in states:  # the seconds that it took are not part of the promise
        state["callbacks"] = {k: v for k, v in state["callbacks"].items() if "Throughput" not in k}
    assert states[0].keys() >= {"optimizer_states", "lr_schedulers", "loops", "callbacks"}
    assert_same(states[0], states[1])


@pytest.mark.slow
def test_ctrl_c_saves_and_a_finished_run_stays_finished(tmp_path, data_folder):
    run = tmp_path / "run"
    code, output = interrupt(start(run, data_folder, *WORLD), run, 6, signal.SIGINT)
    assert code == STOPPED
    assert "stopped by SIGINT after step" in output
    assert "Traceback" not in output
    step = read_status(run)["step"]
    process = start(run, data_folder, *WORLD)
    output, _ = process.communicate(timeout=300)
    assert f"resuming from {run}/checkpoints/step-{step:07d}" in output
    before = rows(run)
    process = start(run, data_folder, *WORLD)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert [row for row in rows(run)[len(before) :] if "train/loss" in row] == []
