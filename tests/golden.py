"""What a change of form may not change: python tests/golden.py FILE.json

The first call records, on this machine: the losses of 20 steps of every recipe (cut down as in
test_experiments), in full precision; the tokens of a rollout of every kind of world model; the
hashes of a token store's files. A later call compares with them, and ends with 1 where one differs.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
os.environ["WANDB_MODE"] = "disabled"

import training  # noqa: E402, F401, I001  (first: it repairs torchvision)
import torch  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402

import training.run as runs  # noqa: E402
from conftest import ROOT, TINY_DRIVES  # noqa: E402
from test_experiments import EXPERIMENTS, cut_of  # noqa: E402
from worldmodel.decoding.config import Sampling  # noqa: E402
from worldmodel.decoding.rollout import rollout  # noqa: E402

STEPS = [
    "trainer.max_steps=20",
    "trainer.val_check_interval=10",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "max_passes=null",
    "callbacks.media=null",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
]


def recorded(folder: Path) -> dict[str, Any]:
    """Figures by recipe; all runs share the drives and stores below `folder`."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for experiment in EXPERIMENTS:
        where = [f"paths.runs={folder}/runs", f"paths.data={folder}/data", *TINY_DRIVES]
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            asked = [f"+experiment={experiment}", *where, *STEPS, *cut_of(experiment)]
            cfg = compose("train", overrides=asked)
        run = runs.open_run(cfg)
        datamodule = runs.build_data(cfg)
        module = runs.build_model(cfg, datamodule)
        trainer = runs.build_trainer(cfg, run, datamodule, module)
        run.describe(datamodule, module)
        run.fit(trainer, module, datamodule)
        rows = [json.loads(row) for row in (run.folder / "metrics.jsonl").read_text().splitlines()]
        kept = ("train/loss", "train/grad_norm", "val/")
        found[experiment] = [
            {k: repr(v) for k, v in row.items() if k.startswith(kept)}
            for row in rows
            if "train/loss" in row or any(k.startswith("val/") for k in row)
        ]
        if hasattr(module, "network") and hasattr(datamodule, "store"):
            found[f"{experiment}: rollout"] = _rollout(module, datamodule)
        print(experiment, "done", flush=True)
    for file in sorted((folder / "data").glob("tokens/*/*.arrow")):
        found[f"store: {file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _rollout(module: Any, datamodule: Any) -> list[int]:
    network = module.network.eval()
    window = datamodule.dataset("test")[0]
    prompt, horizon = network.state_steps or 2, 1 if network.state_steps else 2
    tokens = torch.from_numpy(window[0].astype("int64"))[None, :prompt]
    actions = torch.from_numpy(window[1])[None] if network.num_actions else None
    futures = rollout(network, tokens, actions, horizon, Sampling(top_k=0, seed=3))
    return futures.flatten().tolist()


def main(file: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        now = recorded(Path(folder))
    if not file.exists():
        file.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{file}: {len(now)} figures recorded")
        return 0
    then = json.loads(file.read_text())
    different = [
        name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)
    ]
    print(f"{len(then)} figures, different: {', '.join(different) or 'none'}")
    return int(bool(different))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
