"""python -m benchmarks growth: the table of the four curves, and docs/growth.png."""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.growth.curves import CURVES, Curve, Point
from training.pages.text_table import markdown_table
from training.watch.results import ROOT

PICTURE = ROOT / "docs" / "growth.png"
LINEAR = 1.1  # above, a curve is named


def main(arguments: list[str]) -> str:
    """The table of the curves that are named, all by default; draws them where all are asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth")
    parser.add_argument("curves", nargs="*", metavar="NAME", help=f"of {', '.join(CURVES)}")
    parser.add_argument("--picture", type=Path, help=f"default: {PICTURE.name}, of all curves")
    args = parser.parse_args(arguments)
    names = args.curves or list(CURVES)
    if unknown := sorted(set(names) - set(CURVES)):
        parser.error(f"no curve {unknown[0]!r}; choose from {', '.join(CURVES)}")
    found = {name: points_of(name) for name in names}
    if picture := args.picture or (None if args.curves else PICTURE):
        draw(found, picture)
    return table(found)


def points_of(name: str) -> list[Point]:
    """The points of a curve, measured in another process."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.growth.curves", name]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return [Point(**point) for point in json.loads(done.stdout.splitlines()[-1])]


def table(found: dict[str, list[Point]]) -> str:
    rows = []
    for name, points in found.items():
        curve = CURVES[name]
        cells = [curve.title, " / ".join(f"{value:,}" for value in curve.values)]
        for values in ([p.seconds for p in points], [p.megabytes for p in points]):
            power = exponent(curve, values)
            cells += [" / ".join(f"{v:.3g}" for v in values), f"{power:.2f}"]
            cells[-1] += " (!)" if power > LINEAR else ""
        rows.append([*cells, curve.why])
    head = ["against", "values", "CPU seconds", "power", "MB", "power", "because"]
    return markdown_table(head, rows) + (
        "\n\nA power is that of the last two points: 1 is linear; (!) is above.\n"
    )


def exponent(curve: Curve, values: list[float]) -> float:
    """The slope of the last two points on logarithmic axes."""
    rise = math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9))
    return rise / math.log(curve.values[-1] / curve.values[-2])


def draw(found: dict[str, list[Point]], picture: Path) -> None:
    """A panel per curve: time on the left axis, memory on the right, linear growth dotted."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    for place, (name, points) in enumerate(found.items(), 1):
        curve = CURVES[name]
        time = figure.add_subplot(2, 2, place)
        memory = time.twinx()
        for axis, values, unit, colour in (
            (time, [p.seconds for p in points], "CPU seconds", "tab:blue"),
            (memory, [p.megabytes for p in points], "MB", "tab:orange"),
        ):
            axis.plot(curve.values, values, "o-", color=colour)
            first, last = curve.values[0], curve.values[-1]
            linear = [values[-1] * first / last, values[-1]]
            axis.plot([first, last], linear, ":", color=colour, linewidth=1)
            axis.set_ylabel(unit, color=colour)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
        time.set_xticks(curve.values, [f"{value:,}" for value in curve.values])
        time.minorticks_off()
        time.set_title(curve.title, fontsize=9)
    figure.suptitle("Growth (dotted: linear, through the last point)", fontsize=10)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
