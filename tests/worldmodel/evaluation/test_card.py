"""The whole evaluation, on a small model: every number is there and lies where it must."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from drives.carracing.drives import ACTION_NAMES
from training.errors import BadInput

TINY = [
    "+debug=worldmodel",
    "media=none",
    "trainer.max_steps=12",
    "data.source.carracing.seconds=5.0",
]
FEW = ["num_clips=2", "num_windows=8", "horizon_s=0.4", "num_futures=2"]


@pytest.fixture
def evaluate(monkeypatch):
    """`evaluate(run, *overrides)`: what eval.py does."""
    from hydra import compose, initialize_config_dir

    from training.cli import CONFIGS
    from worldmodel.evaluation.judge import judge

    def call(folder, *overrides):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            judge(compose("eval", overrides=[f"ckpt={folder}", *overrides]))
        written = (folder / "eval/metrics.json").read_text()
        return json.loads(written, parse_constant=pytest.fail)

    monkeypatch.setattr(sys, "argv", ["eval.py"])
    return call


def park(folder, split):
    """A drive of a car that stands still."""
    (folder / "frames").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for number in range(30):
        Image.fromarray(picture).save(folder / f"frames/{number:03}.png")
    names = ",".join(ACTION_NAMES)
    (folder / "actions.csv").write_text(f"{names}\n" + "0,0,0,0,0\n" * 30)
    (folder / "drive.json").write_text(json.dumps({"fps": 10, "split": split}))


def test_a_world_model_gets_its_whole_card(composed, fit, evaluate, tmp_path):
    _, run, _ = fit(composed("gpt_tiny", *TINY))
    card = evaluate(run.folder, *FEW)
    assert card["teacher_forced"]["bits_per_token"] < card["uniform_bits"]
    assert set(card["floors"]) == {"unigram", "position", "copy_last_frame", "previous_token"}
    assert set(card["action_use"]) == {"shuffled", "held", "zeroed", "halved", "x1.5"}
    steps = len(card["teacher_forced"]["bits_by_step"])
    assert steps == run.config["model"]["network"]["context_steps"] - 1
    mean = card["pixels"]["mean"]
    assert mean["ceiling_tokenizer"]["psnr"] > mean["autoregressive"]["psnr"]
    assert mean["ceiling_tokenizer"]["lpips"] < mean["floor_copy_last"]["lpips"]
    assert len(card["pixels"]["by_horizon"]["autoregressive"]["psnr"]) == 4
    assert set(card["steering"]) >= {"left", "straight", "right", "calibration", "amplitude"}
    assert card["seconds_per_frame"] > 0
    out = run.folder / "eval"
    media = {f"{n}.{kind}" for n in ("rollouts", "steering") for kind in ("gif", "mp4", "png")}
    assert {p.name for p in out.iterdir()} == media | {"metrics.json", "report.html"}
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?https?:", page)  # nothing is fetched from anywhere
    for word in (
        "Cross entropy",
        "data:video/mp4",
        "Steering",
        "Use of actions",
        "context_steps",
        "sha256",
    ):
        assert word in page
    again = evaluate(run.folder, *FEW)
    for card_ in (card, again):
        card_.pop("seconds_per_frame")
    assert again == card  # the same seeds, the same judgement

    for setting in ("horizon_s=-1", "horizon_s=99", "num_clips=0"):
        with pytest.raises(BadInput, match=f"{setting}"):
            evaluate(run.folder, *FEW[1:2], setting)
    for split in ("train", "test"):
        park(tmp_path / "parked" / split, split)
    card = evaluate(run.folder, *FEW, "num_clips=1", f"data.root={tmp_path}/parked")
    pixels = card["pixels"]
    assert pixels["num_identical"]["floor_copy_last"] == pixels["num_frames"] == 4
    assert pixels["mean"]["floor_copy_last"]["psnr"] == 100
    assert card["steering"]["left"]["standard_error"] is None  # of one clip
    assert card["steering"]["calibration"]["correlation_on_real_frames"] is None
    page = (out / "report.html").read_text()
    assert "count as 100 dB (floor: copy the last prompt frame: 4 of 4)" in page
    assert page.count("<td>-</td>") == 3


def test_a_world_model_of_video_tokens_gets_its_card(composed, fit, evaluate):
    cut = ["+debug=tokenizer_video", "trainer.max_steps=2", "media=none", "model.loss.gan_start=9"]
    sizes = ["model.autoencoder.image_size=[32,32]", "model.autoencoder.channels=8"]
    _, video, _ = fit(composed("tokenizer_video_tiny", *cut, *sizes))
    drives = [*TINY[2:], f"data.tokenizer={video.folder}", "model.network.num_layers=1"]
    _, run, _ = fit(composed("gpt_tiny", TINY[0], "media.every_steps=5", *drives))
    card = evaluate(run.folder, *FEW[:2], "horizon_s=0.8", "num_futures=1")
    pixels = card["pixels"]
    assert (pixels["num_prompt_frames"], pixels["num_frames"], pixels["fps"]) == (4, 8, 10)
    curves = pixels["by_horizon"]
    assert set(curves) >= {"autoregressive", "temporally_teacher_forced", "ceiling_tokenizer"}
    assert all(len(curve["psnr"]) == 8 for curve in curves.values())
    assert -1 <= card["steering"]["calibration"]["correlation_on_real_frames"] <= 1
    assert (run.folder / "eval/rollouts.mp4").exists()
    assert list((run.folder / "media").rglob("*.png"))


def test_a_tokenizer_gets_its_card(composed, fit, evaluate):
    cut = ["+debug=tokenizer", "trainer.max_steps=4", "media=none", "model.loss.gan_start=2"]
    _, run, _ = fit(composed("tokenizer_tiny", *cut))
    card = evaluate(run.folder)
    assert card["reconstruction"]["num_frames"] > 0
    assert 0 < card["reconstruction"]["codebook_usage"] <= 1
    assert "data:image/png" in (run.folder / "eval/report.html").read_text()


def test_a_prompt_longer_than_the_context_and_another_tokenizer_are_refused(
    composed, fit, evaluate
):
    _, run, _ = fit(composed("gpt_tiny", *TINY, "trainer.max_steps=1", "checkpoints.every_steps=1"))
    with pytest.raises(BadInput, match="context"):
        evaluate(run.folder, *FEW, "prompt_steps=9")
    cut = ["+debug=tokenizer", "trainer.max_steps=1", "media=none", "checkpoints.every_steps=1"]
    _, other, _ = fit(composed("tokenizer_tiny", *cut, "run=${paths.runs}/other"))
    with pytest.raises(BadInput, match="tokenizer"):
        evaluate(run.folder, *FEW, f"tokenizer={other.folder}")
    assert not (run.folder / "eval").exists()


def test_commavq_is_judged_without_pixels(composed, fit, evaluate, shared):
    tokens = f"data.root={shared}/data/commavq/tokens.npy"
    cut = [o for o in TINY if "carracing" not in o and "debug" not in o]
    small = ["model.network.dim=24", "model.network.num_layers=1", "model.network.num_heads=1"]
    _, run, _ = fit(composed("gpt_tiny", "data=commavq", tokens, *cut, *small))
    card = evaluate(run.folder, *FEW)
    assert "skipped" in card["pixels"]
    assert card["floors"]["unigram"]["bits_per_token"] == pytest.approx(9.7, abs=0.5)
