"""One recipe with many seeds: the spread of results, and the reference bands of its curves.

    python -m benchmarks.seeds --seeds 20 --write [setting=value ...]

Runs follow each other; a finished run is kept, an interrupted one continues. `--write` appends the
spread to docs/results.md and writes the curves of healthy runs as the reference of
`python -m training.watch.reference run=RUN`. Settings are passed to train.py.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import ROOT, heading, report
from training.disk.status import read_status
from training.pages.text_table import markdown_table
from training.watch.reference import REFERENCES, Reference, band_of, read_curves

SPREAD = {
    "val/bits_per_token": "bits per token",
    "val/psnr": "PSNR (dB)",
    "val/ssim": "SSIM",
    "val/lpips": "LPIPS",
    "val/codebook_usage": "codes seen in validation",
    "val/codebook_reachable": "codes whose levels are all seen there",
    "doctor/usage": "codes seen in the last window of training",
    "doctor/perplexity": "perplexity there, share of its maximum",
}


def train(recipe: str, seed: int, run: Path, settings: list[str]) -> None:
    """Train one seed to its end in the folder `run`; an interrupted run continues."""
    if read_status(run).get("state") == "finished":
        print(f"{run}: finished already", flush=True)
        return
    fixed = [f"+experiment={recipe}", f"seed={seed}", f"run={run}", "logger=none"]
    command = [sys.executable, str(ROOT / "train.py"), *fixed, "callbacks.media=null", *settings]
    subprocess.run(command, check=True)


def spread(runs: list[Path]) -> str:
    """A table of the last values: mean, standard deviation and extremes over the runs."""
    lines = []
    curves = [read_curves(run) for run in runs]
    for metric, name in SPREAD.items():
        last = [curve[metric][max(curve[metric])] for curve in curves if metric in curve]
        if len(last) == len(runs):
            figures = (statistics.mean(last), statistics.pstdev(last), min(last), max(last))
            lines.append([name, *(f"{figure:.4g}" for figure in figures)])
    return markdown_table(["at the end of training", "mean", "std", "least", "most"], lines)


def findings(runs: list[Path]) -> dict[Path, list[str]]:
    """The doctor's findings, for runs that have any."""
    found = {run: read_status(run).get("findings", []) for run in runs}
    return {run: names for run, names in found.items() if names}


def collapsed(runs: list[Path]) -> str:
    named = [f"{run.name}: {', '.join(names)}" for run, names in findings(runs).items()]
    return f"{len(named)} of {len(runs)} runs with findings of the doctor. " + "; ".join(named)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds")
    parser.add_argument("--seeds", type=int, default=20, help="how many, counted from 0")
    parser.add_argument("--recipe", default="tokenizer_tiny", help="an experiment")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"), help="where the runs go")
    parser.add_argument("--write", action="store_true", help="to docs/results.md and references/")
    parser.add_argument("settings", nargs="*", metavar="setting=value", help="for train.py")
    args = parser.parse_args()
    wrong = [s for s in args.settings if "=" not in s]
    if args.seeds < 2 or wrong:
        print(f"{wrong or '--seeds'}: give setting=value, and at least 2 seeds", file=sys.stderr)
        return 2
    runs = [args.out / args.recipe / f"seed-{seed:02d}" for seed in range(args.seeds)]
    for seed, run in enumerate(runs):
        train(args.recipe, seed, run, args.settings)
    changed = f" with {' '.join(args.settings)}" if args.settings else ""
    title = f"**{args.recipe}{changed}, {len(runs)} seeds.** {collapsed(runs)}"
    report(f"{title}\n\n{spread(runs)}", args.write)
    made = {"settings": args.settings, "heading": heading().strip()}
    healthy = [run for run in runs if run not in findings(runs)]
    if not healthy:
        print("no run was healthy: there is nothing to make a reference of", file=sys.stderr)
        return 1
    reference = Reference(args.recipe, len(healthy), made, band_of(healthy))
    reference.write(args.out / f"{args.recipe}.json")
    if args.write:
        reference.write(REFERENCES / f"{args.recipe}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
