"""Print one table of ratios; see the package's docstring."""

import argparse
import datetime
import importlib
import platform
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import SUITES, Row

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results.md"


def table(rows: list[Row]) -> str:
    lines = ["| measurement | ours | against | ratio | goal |", "|---|---|---|---|---|"]
    for row in rows:
        goal = "" if row.goal is None else f">= {row.goal:g}"
        lines.append(f"| {row.name} | {row.ours} | {row.theirs} | {_figure(row.ratio)} | {goal} |")
    return "\n".join(lines)


def _figure(ratio: float) -> str:
    """Two decimals; small shares in percent."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2%}"


def heading() -> str:
    """Date, commit, hardware and versions: what a figure means nothing without."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    name = commit.stdout.strip() or "no commit"
    if changed.stdout.strip():
        name += " with uncommitted changes"
    today = datetime.date.today().isoformat()
    return f"## {today}, {name}\n\n{hardware()}; torch {torch.__version__}\n"


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    widest = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {torch.get_num_threads()} threads, {widest}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suites", nargs="*", metavar="NAME", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    args = parser.parse_args()
    unknown = sorted(set(args.suites) - set(SUITES))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; choose from {', '.join(SUITES)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for suite in args.suites or SUITES:
        for row in importlib.import_module(f"benchmarks.{suite}").rows():
            rows.append(row)
            print(f"{row.name}: {row.ours} against {row.theirs}: {row.ratio:.2f}", flush=True)
    text = f"{heading()}\n{table(rows)}\n"
    print("\n" + text)
    if args.write:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
