"""Two processes end where one does with the same global batch, and see the same samples."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.checkpoints.folder import SHARDS, newest_first, read_weights
from training.errors import BadInput

ROOT = Path(__file__).parents[3]
STEPS = 8
COMMON = (
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    f"trainer.val_check_interval={STEPS}",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "checkpoints.every_steps=4",
    "max_passes=null",
    "logger=none",
)
WORLD = (
    "+experiment=gpt_tiny",
    "optimizer=adamw",  # Muon cannot be sharded, and blows rounding up to the size of a step
    "+debug=fast",
    "model.network.dropout=0",
    "model.action_dropout=0",
)
TOKENIZER = (
    "+experiment=tokenizer_tiny",
    "+debug=fast",
    "model.loss.gan_start=4",
    "model.loss.discriminator_norm=group",
)
CODEBOOK = (
    "quantizer=vq",
    "model.network.quantizer.kmeans_batches=0",
    "model.network.quantizer.dead_below=0",
)
VIDEO_DECODER = (
    "+experiment=video_decoder_tiny",
    "model=one_pass_decoder",
    "+debug=fast",
    "model.network.num_layers=1",
    "model.network.draft=false",
    "model.network.reach=0",
    "model.network.spacings=[1]",  # nothing is drawn: another number of processes draws others
    "model.network.tasks=[video]",
    "model.token_dropout=0",
    "model.perceptual_weight=0",
    "optimizer.lr=0.02",
    "optimizer.warmup_steps=0",
)
ONE = ("trainer.devices=1", "data.batch_size=4")
TWO = ("trainer.devices=2", "data.batch_size=2")


def train(run, data, *overrides) -> str:
    drawn = any(word.startswith("callbacks.media") for word in overrides)
    common = COMMON if drawn else ("callbacks.media=null", *COMMON)
    command = [sys.executable, "train.py", *overrides, f"run={run}", f"paths.data={data}"]
    done = subprocess.run(
        [*command[:2], *common, *command[2:]],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(run) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def weights(run) -> dict[str, torch.Tensor]:
    return read_weights(newest_first(run)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [WORLD, (*TOKENIZER, *CODEBOOK), VIDEO_DECODER],
    ids=["gpt", "tokenizer-with-a-codebook", "video-decoder"],
)
def test_two_processes_are_one_with_the_same_global_batch(recipe, tmp_path, data_folder):
    train(tmp_path / "one", data_folder, *recipe, *ONE)
    alone = losses(tmp_path / "one")
    assert len(alone) == STEPS
    assert abs(alone[1] - alone[STEPS]) > 0.05  # it learns: equality below is no accident
    for strategy in ("ddp", "fsdp"):
        run = tmp_path / strategy
        train(run, data_folder, *recipe, *TWO, f"trainer={strategy}")
        assert losses(run) == pytest.approx(alone, abs=2e-3), strategy
        assert (newest_first(run)[0] / SHARDS).is_dir() == (strategy == "fsdp")
        moved = codes_that_moved(run, tmp_path / "one")
        for name, value in weights(tmp_path / "one").items():
            apart = (weights(run)[name].float() - value.float()).abs() > 2e-3
            if ".quantizer." in name and apart.dim() and len(apart) == len(moved):
                apart[moved] = False
            assert not apart.any(), f"{strategy} {name}"


def codes_that_moved(run: Path, other: Path) -> Tensor:
    """The codes to which some latents of one run fell and those of the other did not.

    A latent half-way between two codes may fall to either, by the rounding of a sum; how many
    do depends on the CPU. Ranks that did not share their counts would move half of the mass.
    """
    name = "autoencoder.quantizer.cluster_size"
    if name not in weights(run):
        return torch.zeros(0, dtype=torch.bool)
    ours, theirs = (weights(folder)[name].float() for folder in (run, other))
    assert (ours - theirs).abs().sum() < 0.02 * theirs.sum()
    return (ours - theirs).abs() > 2e-3


@pytest.mark.slow
def test_one_two_and_one_process_see_the_same_samples(tmp_path, data_folder):
    """1 -> 2 (ddp) -> 2 (fsdp) -> 1: every resume opens what the others wrote."""
    longer = [f"trainer.max_steps={n}" for n in (4, 6, 8, 10)]
    # A schedule is stretched with the number of steps; a constant one is the same for all.
    recipe = (*WORLD, "optimizer.schedule=constant", "optimizer.warmup_steps=0")
    train(tmp_path / "one", data_folder, *recipe, *ONE, longer[-1])
    run = tmp_path / "several"
    train(run, data_folder, *recipe, *ONE, longer[0])
    train(run, data_folder, *recipe, *TWO, "trainer=ddp", longer[1])
    train(run, data_folder, *recipe, *TWO, "trainer=fsdp", longer[2])
    output = train(run, data_folder, *recipe, *ONE, longer[3])
    assert "resuming from" in output
    assert losses(run) == pytest.approx(losses(tmp_path / "one"), abs=2e-3)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(run)[name], value, atol=2e-3, rtol=0, msg=name)
    config = json.loads((newest_first(run)[0] / "manifest.json").read_text())
    assert config["run"]["global_batch"] == 4


@pytest.mark.slow
def test_a_sharded_run_draws_pictures_of_the_whole_model(tmp_path, data_folder):
    run = tmp_path / "run"
    media = (
        "callbacks.media.every_steps=8",
        "callbacks.media.num_clips=1",
        "callbacks.media.horizon_steps=2",
    )
    train(run, data_folder, *WORLD, *TWO, "trainer=fsdp", *media)
    assert list(run.glob("media/step-*/rollouts.png"))
    from worldmodel.load import load_world_model

    assert load_world_model(run)


@pytest.mark.slow
def test_a_codebook_in_pieces_that_would_have_to_be_written_is_refused(tmp_path, data_folder):
    settings = ("quantizer=vq_gradient", *TWO, "trainer=fsdp")
    with pytest.raises(AssertionError, match=r"a codebook that is a parameter is in pieces"):
        train(tmp_path / "run", data_folder, *TOKENIZER, *settings)


def test_what_excludes_each_other_is_refused(composed):
    from training.cli import judge
    from training.trainer import strategy

    with pytest.raises(BadInput, match=r"trainer\.strategy='deepspeed'"):
        judge(composed("gpt_tiny", "trainer.strategy=deepspeed"), "train")
    with pytest.raises(BadInput, match="shards are written by all ranks together"):
        strategy(composed("gpt_tiny", "trainer=fsdp", "checkpoints.background=true"), None)


@pytest.mark.slow
def test_another_global_batch_is_another_run(composed, fit, tmp_path):
    cut = (
        "+debug=fast",
        "callbacks.media=null",
        "trainer.max_steps=2",
        f"run={tmp_path}/run",
    )
    fit(composed("gpt_tiny", *cut, "data.batch_size=4"))
    with pytest.raises(BadInput, match="its run takes 4 samples per step, now 2"):
        fit(composed("gpt_tiny", *cut, "data.batch_size=2"))
    halves = ("data.batch_size=2", "trainer.accumulate_grad_batches=2", "trainer.max_steps=4")
    _, run, _ = fit(composed("gpt_tiny", *cut, *halves))
    assert run.resume_from
