"""How long commands take to start, on this machine, with data made and files in the page cache.

The first step of a run against its limit; other commands against `import torch` alone, which all of
them need. A first start is not counted: it fills caches.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import Row, in_rounds, ratios, seconds

ROOT = Path(__file__).parents[2]
LIMIT_S, ROUNDS = 15.0, 3
RUN = ("+experiment=gpt_tiny", "trainer.max_steps=2", "trainer.log_every_n_steps=1")
COMMANDS = {
    "train.py --help": ("train.py", "--help"),
    "-m worldmodel.rollout --help": ("-m", "worldmodel.rollout", "--help"),
    "-m tokenizer.encode --help": ("-m", "tokenizer.encode", "--help"),
    "import of all that eval.py needs": ("-c", "import worldmodel.evaluation.judge"),
}


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        taken = [_first_step(Path(folder) / str(number)) for number in range(ROUNDS + 1)][1:]
    yield Row(
        "python train.py +experiment=gpt_tiny, until its first step is done",
        f"{median(taken):.1f} s",
        f"limit {LIMIT_S:g} s",
        goal=1.0,
        **ratios([LIMIT_S] * ROUNDS, taken),
    )
    words = {"torch": ("-c", "import torch"), **COMMANDS}
    starts = {name: lambda w=w: seconds(lambda: _run(w)) for name, w in words.items()}
    for start in starts.values():
        start()
    found = in_rounds(starts, ROUNDS)
    for name in COMMANDS:
        yield Row(
            f"python {name}",
            f"{median(found[name]):.1f} s",
            f"import torch, {median(found['torch']):.1f} s",
            **ratios(found["torch"], found[name]),
        )


def _first_step(run: Path) -> float:
    """Seconds from the start of the process to the row of its first step."""
    began = time.time()
    _run(("train.py", *RUN, f"run={run}"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first = next(row["time"] for row in rows if row["step"] == 1)
    return float(first - began)


def _run(words: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
