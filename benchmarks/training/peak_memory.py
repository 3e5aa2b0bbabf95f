"""Peak memory of training steps: the planner's estimate against a fresh process.

    python -m benchmarks peak_memory                               the recipes, cut where needed
    python -m benchmarks.training.peak_memory gpt_tiny [setting=value ...]  one of them, as JSON

The measured peak on a CPU is the growth of the process during training, after a warm-up with one
example. The C library keeps freed blocks (glibc: mostly small ones); MALLOC_MMAP_THRESHOLD_ makes
it return them, so that the process shows its need. `hoarded` is measured without it. `tensors` is
the figure of torch's profiler. On a GPU it is torch.cuda.max_memory_allocated.
"""

import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import Row
from training.disk.plain_json import to_json

ROOT = Path(__file__).parents[2]
STEPS = 2  # the second step is the first with optimizer state
GAN = "model.loss.gan_start=0"
RECIPES: dict[str, list[str]] = {
    "gpt_tiny": [],
    "gpt_small": ["data.batch_size=4"],
    "gpt_base": ["data.batch_size=2"],
    "tokenizer_tiny": [GAN],
    "tokenizer_base": [GAN, "data.batch_size=1"],
}


def rows() -> Iterator[Row]:
    for name, settings in RECIPES.items():
        found = measure(name, *settings)
        cut = f" ({' '.join(settings)})" if settings else ""
        ours, theirs = (f"{found[key] / 1e6:,.0f} MB" for key in ("planned", "measured"))
        yield Row(f"planned peak memory of {name}{cut}", ours, theirs, found["ratio"])


def measure(experiment: str, *settings: str, hoard: bool = False) -> dict[str, Any]:
    """Planned and measured bytes of a recipe, from a separate process."""
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    environment.pop("MALLOC_MMAP_THRESHOLD_", None)
    if not hoard:
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    command = [sys.executable, "-m", "benchmarks.training.peak_memory", experiment, *settings]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(experiment: str, settings: list[str]) -> None:
    import torch
    from hydra import compose, initialize_config_dir

    from training.planner.plan import plan
    from training.settings import datamodule_of

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        words = [f"+experiment={experiment}", *settings]
        cfg = compose("train", overrides=words)
    planned = plan(cfg).configured
    cfg.trainer.precision = planned.settings.precision
    data = datamodule_of(cfg)
    on_gpu = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    train(cfg, data, 1)
    gc.collect()
    if on_gpu:
        train(cfg, data, cfg.data.batch_size)
        found = {"measured": torch.cuda.max_memory_allocated()}
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = status("VmRSS")
        train(cfg, data, cfg.data.batch_size)
        found = {"measured": status("VmHWM") - before, "process": status("VmHWM")}
        found["tensors"] = tensor_bytes(lambda: train(cfg, data, cfg.data.batch_size))
    ratio = planned.bytes / found["measured"]
    print(to_json({"planned": planned.bytes, **found, "ratio": ratio}, indent=None))


def train(cfg: Any, data: Any, batch_size: int) -> None:
    """A few optimizer steps as Lightning takes them, on one batch without content."""
    import lightning as L

    from training.planner.memory import RepeatedBatch
    from training.planner.plan import Facts
    from training.run import build_model

    facts = data.planned_facts()
    module = build_model(cfg, Facts(facts))
    batch = data.planned_batch(facts, batch_size)
    count = module.accumulate = int(cfg.trainer.accumulate_grad_batches)
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision,
        max_steps=STEPS,
        accumulate_grad_batches=count if module.automatic_optimization else 1,
        barebones=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a bare trainer does not do
        trainer.fit(module, RepeatedBatch(batch, STEPS * count))


def tensor_bytes(work: Any) -> int:
    """Peak bytes of tensors during `work`, from torch's profiler."""
    import tempfile

    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    memory = [e["args"] for e in events if e.get("name") == "[memory]"]
    # The profiler goes on counting from earlier work; its first event has no total yet.
    before = memory[1]["Total Allocated"] - memory[1]["Bytes"]
    return max(event["Total Allocated"] for event in memory) - before


def status(key: str) -> int:
    """Bytes of an entry of /proc/self/status, such as VmRSS and its peak VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
