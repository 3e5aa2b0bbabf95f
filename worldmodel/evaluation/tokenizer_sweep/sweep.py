"""Rate, distortion, predictability.

    python -m worldmodel.evaluation.tokenizer_sweep SWEEP.yaml [setting=value ...]

Trains some tokenizers, and a small probe world model on the tokens of each, with equal steps. A
world model pays for the bits that it cannot predict, not for all that a tokenizer emits. So LPIPS
over the probe's cross entropy in bits per frame decides between tokenizers.

    runs/tokenizer_sweep/<name of the file>/
        <tokenizer>/tokenizer/, <tokenizer>/probe/     run folders like any other
        sweep.json, sweep.txt, sweep.png

Finished runs are read; the others are trained, one after the other in this process. The same
command goes on where it stopped. All scores are of the val split. `plan.py` describes sweep files.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from training.cli import bad_input_fails, plain
from training.disk.places import writable_folder
from training.disk.plain_json import to_json
from training.disk.status import STOPPED, read_status
from training.errors import BadInput
from training.sweeps.trials import check, end_with_validation, last_value, train
from worldmodel.evaluation.tokenizer_sweep.plan import SweepPlan, read_plan

PROBE_METRIC = "val/loss"  # nats per real token, teacher-forced
TOKENIZER_METRIC = "val/psnr"
SPLIT = "val"  # the same drives
CLIPS, CLIP_FRAMES = 32, 17


@dataclass(frozen=True)
class Entry:
    """One tokenizer of a sweep.

    Attributes:
        scores: a row of `python -m tokenizer.compare`.
        probe_nats: nats per token of the probe.
        probe_steps, probe_windows: of the probe's training; equal for all.
    """

    scores: dict[str, Any]
    probe_nats: float
    probe_steps: int
    probe_windows: int

    @property
    def predicted_bits_per_frame(self) -> float:
        """Bits per frame under the probe's cross entropy."""
        return self.probe_nats / math.log(2) * float(self.scores["tokens_per_frame"])


def sweep(plan: SweepPlan) -> dict[str, Any]:
    """Train or read everything, measure, and write the report.

    Returns:
        The content of sweep.json.

    Raises:
        BadInput: an unusable setting, or a folder with a run of other settings.
    """
    configs = {name: plan.tokenizer_config(name) for name in plan.entries}
    writable_folder("paths.runs", _folder(configs))
    for name, cfg in configs.items():  # everything is judged before anything is trained
        plan.probe_config(name, Path(cfg.run))
    for cfg in configs.values():
        check(cfg)
    entries = {}
    for name, cfg in configs.items():
        reach(cfg, TOKENIZER_METRIC)
        probe = plan.probe_config(name, Path(cfg.run))
        print(f"{name}: the probe")
        nats = reach(probe, PROBE_METRIC)
        windows = int(probe.trainer.max_steps) * int(probe.data.batch_size)
        entries[name] = Entry(measure(cfg), nats, int(probe.trainer.max_steps), windows)
        print(f"{name}: {entries[name].predicted_bits_per_frame:.0f} bits per frame")
    return write(_folder(configs), plan, entries)


def reach(cfg: DictConfig, metric: str) -> float:
    """Train a run to its end if needed, and return the last value of a metric.

    Raises:
        BadInput: the folder holds a run of other settings, or of another length.
        SystemExit: a signal stopped the training (code 75).
    """
    end_with_validation(cfg)
    check(cfg)
    value = reached(cfg, metric)
    if value is None:
        print(f"training {cfg.run}")
        train(cfg)
        value = reached(cfg, metric)
    if value is None:
        print(f"{cfg.run}: stopped before its end; the same command continues")
        raise SystemExit(STOPPED)
    return value


def reached(cfg: DictConfig, metric: str) -> float | None:
    """The metric of a finished run; None before its end."""
    value = last_value(cfg, metric)
    return value if read_status(Path(cfg.run)).get("state") == "finished" else None


def measure(cfg: DictConfig) -> dict[str, Any]:
    """The scores of a trained tokenizer, kept beside its run."""
    from drives.sources import DriveSource, source_from_dict
    from tokenizer.compare.command import choose_clips
    from tokenizer.compare.scores import Judge, score_tokenizer
    from tokenizer.load import load_tokenizer
    from tokenizer.losses.lpips import load_lpips
    from training.machine import compute_device  # loads torch

    tokenizer = load_tokenizer(cfg.run)
    file = Path(cfg.run) / "scores.json"
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text())
        if known["hash"] == tokenizer.hash:
            return known
    source = source_from_dict(plain(cfg.data.source))
    assert isinstance(source, DriveSource)
    drives = [drive for drive in source.open() if drive.split == SPLIT]
    if not drives:
        raise BadInput(f"{source.folder}: no drive is in the {SPLIT} split; give it some")
    spec = tokenizer.spec(1.0)
    clips = choose_clips(drives, CLIPS, CLIP_FRAMES, spec.image_size, spec.preprocessing)
    device = compute_device(None)
    weights = cfg.model.loss.lpips_weights
    judge = Judge(load_lpips("alex", Path(weights) if weights else None).to(device), device)
    with tqdm(total=len(clips.places), desc="measuring", unit="clip") as progress:
        scores = score_tokenizer(tokenizer, clips, judge, progress.update)
    row = {"hash": tokenizer.hash, **scores.as_dict()}
    file.write_text(to_json(row) + "\n")
    return row


def write(folder: Path, plan: SweepPlan, entries: dict[str, Entry]) -> dict[str, Any]:
    """sweep.json, sweep.txt and sweep.png."""
    from worldmodel.evaluation.tokenizer_sweep.report import plot, table  # matplotlib loads here

    rows = {
        name: {
            "settings": list(plan.entries[name]),
            "predicted_bits_per_frame": entry.predicted_bits_per_frame,
            **asdict(entry),
        }
        for name, entry in entries.items()
    }
    result = {
        "name": plan.name,
        "split": SPLIT,
        "tokenizer": list(plan.tokenizer),
        "probe": list(plan.probe),
        "overrides": list(plan.overrides),
        "entries": rows,
    }
    (folder / "sweep.json").write_text(to_json(result) + "\n")
    (folder / "sweep.txt").write_text(table(rows))
    plot(folder / "sweep.png", plan.name, rows)
    return result


def _folder(configs: dict[str, DictConfig]) -> Path:
    return Path(next(iter(configs.values())).run).parent.parent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worldmodel.evaluation.tokenizer_sweep",
        description="Rate, distortion and predictability of tokenizers; the same command goes on.",
    )
    parser.add_argument("sweep", type=Path, help="such as configs/tokenizer_sweep/levels.yaml")
    parser.add_argument("overrides", nargs="*", help="settings of every run: key=value")
    asked = parser.parse_args(arguments)
    with bad_input_fails():
        plan = read_plan(asked.sweep, asked.overrides)
        sweep(plan)
        folder = _folder({name: plan.tokenizer_config(name) for name in plan.entries})
        print(f"\n{(folder / 'sweep.txt').read_text()}\n{folder / 'sweep.png'}")


if __name__ == "__main__":
    main(sys.argv[1:])
