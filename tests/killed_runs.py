"""Runs that are killed and started again, and the same run left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from training.checkpoints.folder import newest_first, read_state, read_weights
from training.watch.rows import METRICS_FILE

ROOT = Path(__file__).parent.parent
WORLD = (
    "+experiment=gpt_tiny",
    "+debug=fast",
    "callbacks.media=null",
    "model.network.dim=24",
    "model.network.num_layers=1",
    "optimizer.warmup_steps=5",
)
TOKENIZER = (
    "+experiment=tokenizer_tiny",
    "+debug=fast",
    "callbacks.media=null",
    "model.network.channels=[8,16]",
    "model.loss.perceptual_net=''",
    "model.loss.gan_start=20",
    "model.loss.discriminator_channels=8",
)
# Draws, counts and running means all the way: more state than any other quantizer has.
CODEBOOK = (
    "quantizer=vq",
    "model.network.quantizer.vocab_size=64",
    "model.network.quantizer.dead_below=0.5",
)
STEPS = 60
VALIDATED = list(range(12, STEPS + 1, 12))
TIMED = ("time", "perf/", "data/wait", "ckpt/stall")
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=12",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "checkpoints.every_steps=4",
    "max_passes=null",
    "logger=none",
)


def start(run, data, *overrides) -> subprocess.Popen:
    command = [sys.executable, "train.py", *COMMON, *overrides, f"run={run}", f"paths.data={data}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logged(run: Path) -> list[dict]:
    """The rows of metrics, in their order, without what time they took and when it saved."""
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in whole_rows(run)]
    return [row for row in rows if "ckpt/step" not in row]


def whole_rows(run: Path) -> list[dict]:
    """The rows that are whole, of a run that is being written."""
    file = run / METRICS_FILE
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def assert_is_the_run_left_alone(killed: Path, alone: Path) -> None:
    """Every row once, the last checkpoint bit for bit."""
    rows = logged(killed)
    assert [r["step"] for r in rows if "train/loss" in r] == list(range(1, STEPS + 1))
    assert [r["step"] for r in rows if "val/loss" in r or "val/psnr" in r] == VALIDATED
    assert rows == logged(alone)
    one, two = newest_first(alone)[0], newest_first(killed)[0]
    assert one.name == two.name == f"step-{STEPS:07d}"
    assert_same(read_weights(one), read_weights(two))
    states = [read_state(path) for path in (one, two)]
    for state in states:  # the seconds that it took are not part of the promise
        state["callbacks"] = {k: v for k, v in state["callbacks"].items() if "Throughput" not in k}
    assert states[0].keys() >= {"optimizer_states", "lr_schedulers", "loops", "callbacks"}
    assert_same(states[0], states[1])


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


RECIPES = {
    "gpt": WORLD,
    "gpt-workers-accumulated": (
        *WORLD,
        "data.num_workers=2",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=24",
    ),
    "tokenizer-accumulated-background": (
        *TOKENIZER,
        *CODEBOOK,
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=24",
        "checkpoints.background=true",
    ),
}
