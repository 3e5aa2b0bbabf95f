"""Goodput of a run that is killed ten times, against the same run without kills.

Goodput is `perf/goodput`: seconds of the steps behind the parameters, over seconds since the run
first trained. It includes lost steps, but not the start-up of a process.
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

ROOT = Path(__file__).parents[2]
KILLS, STEPS = 10, 1500
SETTINGS = (
    "+experiment=gpt_tiny",
    "model.network.dim=96",
    "max_passes=null",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    "trainer.log_every_n_steps=5",
    "checkpoints.every_steps=5",
    "checkpoints.background=true",
    "callbacks.media=null",
    "logger=none",
)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        _start(alone).wait()
        killed = Path(folder) / "killed"
        chance = random.Random(0)
        for step in sorted(chance.sample(range(20, STEPS - 20), KILLS)):
            process = _start(killed)
            while not any(row["step"] >= step for row in _rows(killed)[-3:]):
                if process.poll() is not None:
                    raise RuntimeError(f"{killed}: ended with {process.returncode}")
                time.sleep(0.05)
            # Rows appear when a checkpoint begins: otherwise all kills would hit that moment.
            before, last = (row["time"] for row in _rows(killed)[-2:])
            time.sleep(chance.uniform(0, last - before))
            process.send_signal(signal.SIGKILL)
            process.wait()
        _start(killed).wait()
        ours, theirs = (_rows(run)[-1]["perf/goodput"] for run in (killed, alone))
    name = f"goodput of a run killed {KILLS} times in {STEPS} steps, a checkpoint every 5"
    yield Row(name, f"{ours:.3f}", f"left alone {theirs:.3f}", ours / theirs, goal=0.97)


def _start(run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", *SETTINGS, f"run={run}"]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )


def _rows(run: Path) -> list[dict[str, float]]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [row for row in rows if "perf/goodput" in row]
