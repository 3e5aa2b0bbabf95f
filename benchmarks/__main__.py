"""Print one table of ratios; see the package's docstring."""

import argparse
import importlib
import sys

from benchmarks import SUITES, Row
from benchmarks.gpu import command as gpu
from benchmarks.growth import command as growth
from training.pages.text_table import markdown_table
from training.watch.results import ROOT, append, heading

RESULTS = ROOT / "docs" / "results.md"


def table(rows: list[Row]) -> str:
    cells = [
        [r.name, r.ours, r.theirs, _figure(r), "" if r.goal is None else f">= {r.goal:g}"]
        for r in rows
    ]
    return markdown_table(["measurement", "ours", "against", "ratio", "goal"], cells)


def _figure(row: Row) -> str:
    """Two decimals, small shares in percent; with the range over the rounds."""
    ratio = f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.2%}"
    return ratio if row.spread is None else f"{ratio} [{row.spread[0]:.2f}, {row.spread[1]:.2f}]"


def report(body: str, write: bool) -> None:
    """Print measurements under their heading; with `write`, append them to the results."""
    text = f"{heading()}\n{body}\n"
    print("\n" + text)
    if write:
        append(text, RESULTS)


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:
        return gpu.main(sys.argv[2:])
    if sys.argv[1:2] == ["growth"]:
        arguments = [word for word in sys.argv[2:] if word != "--write"]
        report(growth.main(arguments), write="--write" in sys.argv)
        return 0
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
        for row in importlib.import_module(f"benchmarks.{SUITES[suite]}.{suite}").rows():
            rows.append(row)
            print(f"{row.name}: {row.ours} against {row.theirs}: {_figure(row)}", flush=True)
    report(table(rows), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
