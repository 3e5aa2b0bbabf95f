"""Every recipe composes and takes a step; the large ones are cut down, nothing else."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(p.stem for p in (ROOT / "configs/experiment").glob("*.yaml"))
ONE_STEP = ["trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.log_every_n_steps=1"]
CUT = {
    "tokenizer": [
        "model.autoencoder.image_size=[64,64]",
        "model.autoencoder.channels=[16,16,16]",
        "model.autoencoder.patch=2",
        "model.loss.perceptual_net=alex",
        "model.loss.gan_start=0",
        "loader.batch_size=2",
        "loader.num_val_clips=2",
        "loader.num_workers=0",
    ],
    "tokenizer_video": [
        "model.autoencoder.image_size=[32,32]",
        "model.autoencoder.channels=8",
        "model.loss.perceptual_net=alex",
        "model.loss.gan_start=0",
        "loader.batch_size=2",
        "loader.num_val_clips=2",
        "loader.num_workers=0",
    ],
    "musik": [
        "model.autoencoder.channels=[8,16]",
        "model.autoencoder.num_negatives=15",
        "loader.batch_size=2",
        "loader.num_val_clips=2",
        "loader.num_workers=0",
    ],
    "dino": [
        "model.weights=random",
        "model.autoencoder.image_size=[64,64]",
        "model.autoencoder.dim=32",
        "model.autoencoder.depth=1",
        "model.autoencoder.heads=2",
        "loader.batch_size=2",
        "loader.num_val_clips=2",
        "loader.num_workers=0",
    ],
    "gpt": [
        "model.network.dim=48",
        "model.network.num_layers=1",
        "model.network.num_heads=2",
        "loader.batch_size=2",
        "loader.num_val_windows=2",
        "loader.num_workers=0",
    ],
}
CUT["whole"] = [*CUT["gpt"], "model.network.num_layers=2"]
CUT["vqkd"] = [*CUT["dino"], "model.autoencoder.encoder_depth=1"]
CUT["masked"] = CUT["gpt"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment, composed, fit):
    cut = CUT["tokenizer_video" if "video" in experiment else experiment.split("_")[0]]
    _, run, trainer = fit(composed(experiment, *ONE_STEP, *cut, "media.every_steps=1"))
    assert trainer.global_step == 1
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "media"} <= names
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = {key for row in rows for key in row}
    assert "train/loss" in logged
    assert any(key.startswith("val/") for key in logged)
    assert list((run.folder / "media").rglob("*.png"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_states_how_it_was_run(experiment):
    header = (ROOT / f"configs/experiment/{experiment}.yaml").read_text().split("name:")[0]
    assert "# @package _global_" in header
    assert f"python train.py +experiment={experiment}" in header
    assert "hardware" in header
    assert "TODO" not in header


@pytest.mark.parametrize(
    "experiment",
    ["tokenizer_tiny", pytest.param("tokenizer_tiny_vq", marks=pytest.mark.slow), "gpt_tiny"],
)
def test_a_resumed_run_equals_the_one_left_alone_bit_for_bit(experiment, composed, fit):
    cut = [*CUT[experiment.split("_")[0]], "checkpoints.every_steps=3", "checkpoints.keep=9"]
    steps = ["trainer.max_steps=8", "trainer.val_check_interval=3", "media=none"]
    if experiment == "gpt_tiny":
        steps += ["model.network.dropout=0.1", "model.action_dropout=0.5"]
    alone, _, _ = fit(composed(experiment, *cut, *steps, "run=${paths.runs}/alone"))
    # Stopped twice on the way, once where no epoch ends and once after a validation.
    for stop in (3, 6):
        short = [s for s in steps if "max_steps" not in s]
        # The schedule must be that of the whole run, so the loop is stopped, not shortened.
        cfg = composed(experiment, *cut, *short, "trainer.max_steps=8", "run=${paths.runs}/parts")
        with pytest.raises(_Stopped):
            fit(cfg, Die(stop))
    resumed, run, trainer = fit(composed(experiment, *cut, *steps, "run=${paths.runs}/parts"))
    assert run.resume_from is not None
    assert trainer.global_step == 8
    for name, value in alone.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for a, b in zip(alone.trainer.optimizers, trainer.optimizers, strict=True):
        assert str(a.state_dict()) == str(b.state_dict())


class _Stopped(RuntimeError):
    pass


class Die(L.Callback):
    """Dies inside the loop, one step after `step` was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step + 1:
            raise _Stopped
