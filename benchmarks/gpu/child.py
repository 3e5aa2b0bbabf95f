"""The process of one part: prints a JSON line per row and note; see `benchmarks.gpu.command`."""

import importlib
import json
import os
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.parts import PARTS
from training.watch.results import heading


def main(name: str, toy: bool) -> None:
    rows = importlib.import_module(f"benchmarks.gpu.{PARTS[name].module}").rows
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed belongs with the complaints
    if not sys.stdin.readline():
        return
    if not toy and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; give --toy for small sizes on a CPU")
    if toy:  # traced, but not compiled to machine code
        torch.compile = partial(torch.compile, backend="aot_eager")
    torch.set_float32_matmul_precision("high")  # as in training
    torch.manual_seed(0)

    def tell(found: Any) -> None:
        results.write(json.dumps(found) + "\n")
        results.flush()

    tell(heading())
    for found in rows(name, toy):
        tell(found if isinstance(found, str) else asdict(found))


if __name__ == "__main__":
    main(sys.argv[1], "--toy" in sys.argv[2:])
