"""Goodput of a run that is killed ten times, against the same run left alone.

Goodput: seconds of the steps behind the parameters, as the run itself counts them, over the
seconds for which its processes trained. The clock of the latter is here, because a killed process
cannot say when it died: from the start of each process's first step until its death, without its
start-up. Kills come at ten moments spread evenly over the time between two checkpoints, in random
order, each in a random row. Left alone, the run's goodput stays as it is: a fifth of it tells.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Row
from training.disk.status import read_status

ROOT = Path(__file__).parents[2]
KILLS, STEPS, ALONE = 10, 1500, 300
EVERY = 5
SETTINGS = (
    "+experiment=gpt_tiny",
    "model.network.dim=96",
    "data.batch_size=2",
    "max_passes=null",
    f"trainer.val_check_interval={2 * STEPS}",
    f"trainer.log_every_n_steps={EVERY}",
    f"checkpoints.every_steps={EVERY}",
    "checkpoints.background=true",
    "callbacks.media=null",
    "logger=none",
)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        killed, own = goodput(Path(folder) / "killed", STEPS, _kills())
        alone, _ = goodput(Path(folder) / "alone", ALONE, [])
    name = f"goodput of a run killed {KILLS} times in {STEPS} steps, a checkpoint every {EVERY}"
    ours = f"{killed:.3f} (its own last row: {own:.3f})"
    yield Row(name, ours, f"left alone {alone:.3f}", killed / alone, goal=0.97)


def _kills() -> list[tuple[int, float]]:
    """Steps to kill at, and the share of the time between two rows that passes after them."""
    chance = random.Random(0)
    shares = [(i + chance.random()) / KILLS for i in range(KILLS)]
    chance.shuffle(shares)
    return list(zip(sorted(chance.sample(range(20, STEPS - 20), KILLS)), shares, strict=True))


def goodput(run: Path, steps: int, kills: list[tuple[int, float]]) -> tuple[float, float]:
    """Goodput of a run of `steps` steps with these kills, and what its last row says it is."""
    alive = 0.0
    for step, share in kills:
        process, began = _started(run, steps)
        while not any(row["step"] >= step for row in _rows(run)[-3:]):
            _alive(process, run)
        before, last = (row["time"] for row in _rows(run)[-2:])
        time.sleep(max(0.0, last + share * (last - before) - time.time()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        alive += time.time() - began
        print(f"killed at {share:.2f} of a row after step {_rows(run)[-1]['step']}", flush=True)
    process, began = _started(run, steps)
    process.wait()
    last_row = _rows(run)[-1]
    alive += last_row["time"] - began
    kept = last_row["perf/goodput"] * read_status(run)["alive_s"]
    return kept / alive, last_row["perf/goodput"]


def _started(run: Path, steps: int) -> tuple[subprocess.Popen[bytes], float]:
    """The process of a run, and when it began to train."""
    attempts = read_status(run).get("attempts", 0)
    command = [sys.executable, "train.py", *SETTINGS, f"trainer.max_steps={steps}", f"run={run}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    while read_status(run).get("attempts", 0) == attempts:
        _alive(process, run)
    return process, float(read_status(run)["updated"])


def _alive(process: subprocess.Popen[bytes], run: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"{run}: ended with {process.returncode}")
    time.sleep(0.1)


def _rows(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [row for row in rows if "perf/goodput" in row]
