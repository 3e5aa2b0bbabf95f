"""What keeps a dream together for ten seconds, at equal CPU seconds of training.

    python -m benchmarks.long_dreams --seconds 900 --seeds 3 --write [setting=value ...]
    python -m benchmarks.long_dreams --sampling runs/gpt_tiny --write [setting=value ...]

The first trains every variant for as many steps as its seconds allow: what a step computes for is
measured before. A batch of any variant holds equally many frames. The second decodes one
checkpoint under several sampling settings; it trains nothing. Both ask the card `drift`. Finished
runs and evaluations are kept, so an interrupted command continues. Settings are passed to train.py,
with --sampling to eval.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import ROOT, report
from benchmarks.seeds import train
from training.help import composed
from training.pages.text_table import markdown_table
from training.run import build_data, build_model, build_trainer, open_run

FRAMES = 32  # of a batch
TIMED, WARM = 24, 4
SELF_FED = "model.robustness.self_fed_frames"
# What gpt_tiny has and the recipes of whole frames do not, so that the kinds alone differ.
AS_GPT_TINY = (
    "optimizer=muon",
    "model.network.share_factors=null",
    "model.network.layout.action_scale=standard",
)
# Recipe, frames of the context, further settings.
VARIANTS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "context 4": ("gpt_tiny", 4, ()),
    "context 8": ("gpt_tiny", 8, ()),
    "context 16": ("gpt_tiny", 16, ()),
    "context 4, self-fed": ("gpt_tiny", 4, (f"{SELF_FED}=2",)),
    "context 8, self-fed": ("gpt_tiny", 8, (f"{SELF_FED}=4",)),
    "context 16, self-fed": ("gpt_tiny", 16, (f"{SELF_FED}=8",)),
    "corrupted": ("gpt_tiny", 8, ("model.robustness.corrupt=0.3",)),
    "whole frame, context 8": ("whole_tiny", 8, AS_GPT_TINY),
    "whole frame, inner, context 8": ("whole_inner_tiny", 8, AS_GPT_TINY),
    "whole frame, inner, context 16": ("whole_inner_tiny", 16, AS_GPT_TINY),
    # 7 of 16 frames are read, so twice the windows make a batch.
    "keyframes, context 16": (
        "gpt_tiny",
        16,
        ("model=keyframes", "model.network.inner_layers=2", "data.batch_size=4"),
    ),
}
SAMPLINGS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "all tokens": ("sampling.top_k=0",),
    "top_k 10": ("sampling.top_k=10",),
    "top_p 0.95": ("sampling.top_k=0", "sampling.top_p=0.95"),
    "top_p 0.8": ("sampling.top_k=0", "sampling.top_p=0.8"),
    "temperature 0.9": ("sampling.temperature=0.9",),
    "temperature 0.7": ("sampling.temperature=0.7",),
    "the likeliest token": ("sampling.greedy=true",),
}
DREAM, FROZEN = "own samples", "floor_copy_last"


class StepSeconds(L.Callback):
    """CPU seconds of this process at the start of every step."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.stamps.append(time.process_time())

    @property
    def median(self) -> float:
        pairs = zip(self.stamps[WARM:], self.stamps[WARM + 1 :], strict=False)
        return statistics.median(after - before for before, after in pairs)


def settings_of(variant: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe of a variant and its settings; `words` of the command line win."""
    recipe, context, own = VARIANTS[variant]
    sizes = [f"model.network.context_steps={context}", f"data.batch_size={FRAMES // context}"]
    return recipe, [*sizes, *own, "max_passes=null", "data.num_workers=0", *words]


def step_seconds(variant: str, out: Path, words: Sequence[str]) -> float:
    """CPU seconds of a step, by a short run that is thrown away."""
    recipe, settings = settings_of(variant, words)
    fixed = [f"+experiment={recipe}", f"run={out}", "ckpt=null", "logger=none"]
    short = [f"trainer.max_steps={WARM + TIMED}", "trainer.val_check_interval=9999"]
    quiet = ["callbacks.media=null", "callbacks.progress_bar=null"]
    cfg = composed("train", [*fixed, *settings, *short, *quiet])
    run, data = open_run(cfg), build_data(cfg)
    module, times = build_model(cfg, data), StepSeconds()
    trainer = build_trainer(cfg, run, data, module)
    trainer.callbacks.append(times)  # type: ignore[attr-defined]
    run.describe(data, module)
    run.fit(trainer, module, data)
    return times.median


def drift(run: Path, out: Path, horizon_s: float, clips: int, words: Sequence[str]) -> Path:
    """Ask the card of a run; the file of its figures."""
    card = [
        f"cards.drift.{setting}"
        for setting in (
            "version=long_dreams",
            f"horizon_s={horizon_s:g}",
            f"num_clips={clips}",
            "prompt_steps=2",  # of every variant, so that all begin with the same frames
        )
    ]
    command = [sys.executable, str(ROOT / "eval.py"), f"ckpt={run}", f"out={out}", "card=drift"]
    if not (out / "metrics.json").exists():
        subprocess.run([*command, *card, *words], check=True)
    return out / "metrics.json"


def figures(file: Path) -> dict[str, float]:
    """What the table tells of one evaluation."""
    card = json.loads(file.read_text())["cards"]["drift"]
    seconds, excess = card["axis"]["values"], card["curves"][DREAM]["excess_lpips"]["value"]
    frozen = card["curves"][FROZEN]["excess_lpips"]["value"]
    found = {"doubled after (s)": card["scores"][DREAM]["seconds_until_doubled"]["value"]}
    until = card["frozen_frame_as_good_after_s"]
    found["better than a frozen frame until (s)"] = seconds[-1] if until is None else until
    for at in (0.5, 2.0, 4.0, seconds[-1]):
        if seconds[0] <= at <= seconds[-1]:
            nearest = min(range(len(seconds)), key=lambda i, at=at: abs(seconds[i] - at))
            told = f"excess LPIPS at {seconds[nearest]:g} s (frozen)"
            found[told] = excess[nearest]
            found[f"{told} frozen"] = frozen[nearest]
    found["tokens beside the recording"] = card["histogram_by_second"][-1]["value"]
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]], steps: Mapping[str, str]) -> str:
    """A row for each variant: means over its seeds, and the least and the most of several."""
    names = [name for name in next(iter(found.values()))[0] if not name.endswith(" frozen")]
    rows = []
    for variant, runs in found.items():
        cells = []
        for name in names:
            floor = runs[0].get(f"{name} frozen")
            cells.append(_cell([run[name] for run in runs]))
            cells[-1] += "" if floor is None else f" ({floor:.3f})"
        rows.append([variant, *([steps[variant]] if steps else []), *cells])
    return markdown_table(["", *(["steps"] if steps else []), *names], rows)


def _cell(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "none"
    mean = f"{statistics.mean(there):.3g}"
    return mean if len(there) == 1 else f"{mean} [{min(there):.3g}, {max(there):.3g}]"


def compare_trainings(args: argparse.Namespace) -> str:
    """Train and judge every variant with every seed."""
    found: dict[str, list[dict[str, float]]] = {}
    steps: dict[str, str] = {}
    for variant in args.only or VARIANTS:
        recipe, settings = settings_of(variant, args.settings)
        folder = args.out / variant.replace(", ", "-").replace(" ", "_")
        noted = folder / "step_seconds.json"
        if not noted.exists():
            each = step_seconds(variant, folder / "timed", args.settings)
            noted.write_text(json.dumps(each))
        count = max(4, round(args.seconds / json.loads(noted.read_text())))
        length = [f"trainer.max_steps={count}", f"trainer.val_check_interval={count // 4}"]
        saved = [f"checkpoints.every_steps={count}", "callbacks.progress_bar=null"]
        steps[variant], found[variant] = str(count), []
        for seed in range(args.seeds):
            run = folder / f"seed-{seed}"
            train(recipe, seed, run, [*settings, *length, *saved])
            file = drift(run, run / "long_dreams", args.horizon, args.clips, [])
            found[variant].append(figures(file))
    title = f"**Dreams of {args.horizon:g} s** after {args.seconds:g} CPU seconds of training"
    changed = f" with {' '.join(args.settings)}" if args.settings else ""
    return f"{title}, {args.seeds} seeds{changed}.\n\n{table(found, steps)}"


def compare_samplings(args: argparse.Namespace) -> str:
    """Judge one checkpoint under every sampling setting."""
    found = {}
    for name in args.only or SAMPLINGS:
        out = args.out / "sampling" / args.sampling.name / name.replace(" ", "_")
        words = [*SAMPLINGS[name], *args.settings]
        found[name] = [figures(drift(args.sampling, out, args.horizon, args.clips, words))]
    return f"**Dreams of {args.sampling}, {args.horizon:g} s.**\n\n{table(found, {})}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_dreams")
    parser.add_argument("--seconds", type=float, default=900, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, default=3, help="how many, counted from 0")
    parser.add_argument("--sampling", type=Path, metavar="RUN", help="of this run; trains nothing")
    parser.add_argument("--only", action="append", metavar="NAME", help="variants; may be repeated")
    parser.add_argument("--horizon", type=float, default=10.0, help="seconds of a dream")
    parser.add_argument("--clips", type=int, default=16, help="dreams of a model")
    parser.add_argument("--out", type=Path, default=Path("runs/long_dreams"))
    parser.add_argument("--write", action="store_true", help="to docs/results.md")
    parser.add_argument("settings", nargs="*", metavar="setting=value")
    args = parser.parse_args()
    known = SAMPLINGS if args.sampling else VARIANTS
    wrong = [name for name in args.only or () if name not in known]
    wrong += [word for word in args.settings if "=" not in word]
    if wrong or args.seeds < 1 or args.seconds <= 0:
        print(f"{wrong}: names are {', '.join(known)}; settings are NAME=VALUE", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    report(compare_samplings(args) if args.sampling else compare_trainings(args), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
