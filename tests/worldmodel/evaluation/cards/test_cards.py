"""The whole evaluation, on a small model: every number is there and lies where it must."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from drives.carracing.drives import ACTION_NAMES
from training.errors import BadInput
from worldmodel.evaluation.cards.control_readings import column_trust
from worldmodel.evaluation.report.terminal import table_of

TINY = [
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=12",
    "data.source.carracing.seconds=5.0",
]
ALL = "card=[teacher_forced,rollout,control]"
FEW = [
    ALL,
    "cards.control.reader_steps=4",
    *(f"cards.{card}.version=few" for card in ("teacher_forced", "rollout", "control")),
    *(f"cards.{card}.num_windows=8" for card in ("teacher_forced", "control")),
    *(
        f"cards.{card}.{s}"
        for card in ("rollout", "control")
        for s in ("num_clips=2", "horizon_s=0.4")
    ),
]


@pytest.fixture
def evaluate(monkeypatch):
    """`evaluate(run, *overrides)`: what eval.py does."""
    from hydra import compose, initialize_config_dir

    from training.help import CONFIGS
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


@pytest.mark.slow
def test_a_world_model_gets_its_cards(composed, fit, evaluate, tmp_path):
    _, run, _ = fit(composed("gpt_tiny", *TINY, "data.source.carracing.num_test=2"))
    found = evaluate(run.folder, *FEW)
    cards = found["cards"]
    forced = cards["teacher_forced"]
    bits = {system: scores["bits_per_token"] for system, scores in forced["scores"].items()}
    assert bits["world model"]["low"] < bits["world model"]["value"] < bits["world model"]["high"]
    assert bits["world model"]["value"] < bits["uniform"]["value"]
    assert {"unigram", "position", "copy_last_frame", "previous_token"} <= set(forced["floors"])
    top = [
        forced["scores"]["world model"][f"{k}accuracy"]["value"] for k in ("", "top_5_", "top_50_")
    ]
    assert top == sorted(top)
    assert forced["clips"]["num"] == len(forced["clips"]["ids"]) == 8
    steps = len(forced["bits_by_step"])
    assert steps == run.config["model"]["network"]["context_steps"] - 1
    assert np.mean(forced["bits_by_cell"]) == pytest.approx(bits["world model"]["value"])
    control = cards["control"]
    assert set(control["action_use"]) == {"shuffled", "held", "zeroed", "halved", "x1.5"}
    rows = control["scores"]
    assert rows["true actions"]["cost_bits_per_frame"]["value"] == 0
    true, shuffled = (rows[f"{name} actions"]["bits_per_frame"] for name in ("true", "shuffled"))
    cost = rows["shuffled actions"]["cost_bits_per_frame"]
    assert cost["value"] == pytest.approx(shuffled["value"] - true["value"])
    assert true["value"] == pytest.approx(64 * bits["world model"]["value"])
    assert set(control["cost_by_lag"]) == {"-2", "-1", "0", "1", "2"}
    read = control["inverse_dynamics"]
    assert set(read["columns"]) == {"speed_mps", "yaw_rate_rad_s", "steering"}
    for name in read["columns"]:
        for source in ("camera", "reconstruction", "imagined, true actions"):
            assert -1 <= read[source][name]["correlation"]["value"] <= 1
        levels = 3 if name == "speed_mps" else 5
        assert len(read["commands"][name]["curve"]) == levels
        told = [line for line in control["lines"] if line.startswith(name)]
        of_imagined = {"read from imagined" in line for line in told}
        assert (True in of_imagined) == read["trust"][name]["readable"]
        assert any("cannot be read" in line for line in told) != read["trust"][name]["readable"]
    assert any("read from camera" in line for line in control["lines"])
    assert set(control["steering"]) >= {"left", "straight", "right", "calibration", "amplitude"}
    rollout = cards["rollout"]
    mean = {
        system: {k: v["value"] for k, v in s.items()} for system, s in rollout["scores"].items()
    }
    assert mean["ceiling_tokenizer"]["psnr"] > mean["autoregressive"]["psnr"]
    assert mean["ceiling_tokenizer"]["lpips"] < mean["floor_copy_last"]["lpips"]
    assert mean["best_of_futures"]["lpips"] <= mean["autoregressive"]["lpips"]
    assert mean["autoregressive"]["spread_lpips"] > 0
    assert len(rollout["curves"]["autoregressive"]["psnr"]["value"]) == 4
    assert rollout["seconds_per_frame"] > 0
    out = run.folder / "eval"
    media = {f"{n}.{kind}" for n in ("rollouts", "steering") for kind in ("gif", "mp4", "png")}
    media |= {"comic.gif", "comic.png", "films_rollout", "films_control"}
    names = media | {"metrics.json", "clips.json", "report.html"}
    assert {p.name for p in out.iterdir()} == names
    values = json.loads((out / "clips.json").read_text())["teacher_forced"]["values"]
    own = values["world model"]["bits_per_token"]
    assert np.mean(own) == pytest.approx(bits["world model"]["value"])
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?https?:", page)  # nothing is fetched from anywhere
    for word in ("Cross entropy", "data:image/webp", "steered left", "context_steps", "sha256"):
        assert word in page
    again = evaluate(run.folder, *FEW)
    for one in (found, again):
        one["cards"]["rollout"].pop("seconds_per_frame")
    assert again == found  # the same seeds, the same judgement

    for card, setting in (("rollout", "horizon_s=99"), ("rollout", "prompt_steps=9")):
        with pytest.raises(BadInput, match=f"cards.{card}.{setting}"):
            evaluate(run.folder, *FEW, f"cards.{card}.{setting}")
    for split in ("train", "test"):
        park(tmp_path / "parked" / split, split)
    alone = ["cards.rollout.num_clips=1", "cards.control.num_clips=1"]
    cards = evaluate(run.folder, *FEW, *alone, f"data.root={tmp_path}/parked")["cards"]
    rollout, steering = cards["rollout"], cards["control"]["steering"]
    assert rollout["num_identical"]["floor_copy_last"] == rollout["num_frames"] == 4
    assert rollout["scores"]["floor_copy_last"]["psnr"]["value"] == 100
    assert rollout["scores"]["floor_copy_last"]["psnr"]["low"] is None  # of one drive
    assert steering["left"]["standard_error"] is None  # of one clip
    assert steering["calibration"]["correlation_on_real_frames"] is None
    assert "none ever moves" in cards["control"]["inverse_dynamics"]["skipped"]
    page = (out / "report.html").read_text()
    assert "count as 100 dB (floor: copy the last prompt frame: 4 of 4)" in page


def test_distances_of_whole_videos_have_floors_and_are_refused_below_a_number(
    composed, fit, evaluate
):
    few = ["trainer.max_steps=2", "checkpoints.every_steps=2", "data.source.carracing.num_test=2"]
    _, run, _ = fit(composed("gpt_tiny", *TINY, *few))
    asked = ["card=distance", "cards.distance.version=few", "cards.distance.clip_frames=3"]
    asked += ["cards.distance.num_clips=4"]
    with pytest.raises(BadInput, match="it needs min_clips=64 clips of 3 frames, and there are 4"):
        evaluate(run.folder, *asked)
    card = evaluate(run.folder, *asked, "cards.distance.min_clips=4")["cards"]["distance"]
    far = {name: s.get("frechet_statistics", {}).get("value") for name, s in card["scores"].items()}
    assert 0 < far["ceiling_tokenizer"] < far["world model"]
    assert far["real_other_half"] > 0
    change = {n: s["change"]["value"] for n, s in card["scores"].items() if "change" in s}
    assert change["floor_copy_last"] == 0 < change["real"]
    assert set(card["warnings"]) == {"clip_frames", "few_drives"}


def test_settings_that_do_not_fit_the_model_are_refused(composed, fit, evaluate):
    """A changed card without a version of its own, a card of another kind, a long prompt."""
    few = ["trainer.max_steps=1", "checkpoints.every_steps=1"]
    _, run, _ = fit(composed("gpt_tiny", *TINY, *few))
    with pytest.raises(BadInput, match=r"cards.teacher_forced.num_windows: is not as version 1"):
        evaluate(run.folder, "card=teacher_forced", "cards.teacher_forced.num_windows=4")
    with pytest.raises(BadInput, match="card=reconstruction: is for a tokenizer"):
        evaluate(run.folder, "card=reconstruction")
    with pytest.raises(BadInput, match="context"):
        evaluate(run.folder, *FEW, "cards.rollout.prompt_steps=9")
    small = ["callbacks.media=null", "run=${paths.runs}/other"]
    _, other, _ = fit(composed("tokenizer_tiny", "+debug=fast", *few, *small))
    with pytest.raises(BadInput, match="tokenizer"):
        evaluate(run.folder, *FEW, f"tokenizer={other.folder}")
    assert not (run.folder / "eval").exists()


# Slow: two threads wait for each other wherever another process has one of the two cores.
@pytest.mark.slow
def test_figures_do_not_depend_on_batch_size_or_threads(composed, fit, evaluate):
    """Of differences near 0 the rounding of what they are differences of is the last digit."""
    _, run, _ = fit(composed("gpt_tiny", *TINY))
    found = []
    for batch, threads in ((1, 1), (5, 2)):
        torch.set_num_threads(threads)
        cards = evaluate(run.folder, *FEW, f"batch_size={batch}")["cards"]
        cards["rollout"].pop("seconds_per_frame")
        found.append(table_of(cards))
    small = re.compile(r"-?\b0\.00\d+")
    assert small.sub("#", found[0]) == small.sub("#", found[1])
    one, other = ([float(digits) for digits in small.findall(table)] for table in found)
    assert one == pytest.approx(other, abs=2e-6)


@pytest.mark.slow
def test_a_world_model_of_video_tokens_gets_its_card(composed, fit, evaluate):
    cut = [
        "+debug=fast",
        "trainer.max_steps=2",
        "callbacks.media=null",
        "model.loss.gan_start=9",
    ]
    sizes = ["model.network.image_size=[32,32]", "model.network.channels=8"]
    _, video, _ = fit(composed("tokenizer_video_tiny", *cut, *sizes))
    drives = [*TINY[2:], f"data.tokenizer={video.folder}", "model.network.num_layers=1"]
    _, run, _ = fit(composed("gpt_tiny", TINY[0], "callbacks.media.every_steps=5", *drives))
    longer = [f"cards.{card}.horizon_s=0.8" for card in ("rollout", "control")]
    cards = evaluate(run.folder, *FEW, *longer, "cards.rollout.num_futures=1")["cards"]
    pixels = cards["rollout"]
    assert (pixels["num_prompt_frames"], pixels["num_frames"], pixels["fps"]) == (4, 8, 10)
    curves = pixels["curves"]
    assert set(curves) >= {"autoregressive", "temporally_teacher_forced", "ceiling_tokenizer"}
    assert all(len(curve["psnr"]["value"]) == 8 for curve in curves.values())
    calibration = cards["control"]["steering"]["calibration"]
    assert -1 <= calibration["correlation_on_real_frames"] <= 1
    assert (run.folder / "eval/rollouts.mp4").exists()
    assert list((run.folder / "media").rglob("*.png"))


def test_a_tokenizer_gets_its_card(composed, fit, evaluate):
    cut = [
        "+debug=fast",
        "trainer.max_steps=4",
        "callbacks.media=null",
        "model.loss.gan_start=2",
    ]
    module, run, trainer = fit(composed("tokenizer_tiny", *cut))
    assert {name for name in trainer.callback_metrics if "val/" in name} == set(module.validated)
    card = evaluate(run.folder)["cards"]["reconstruction"]["means"]
    assert card["num_frames"] > 0
    assert 0 < card["codebook_usage"] <= 1
    assert "data:image/png" in (run.folder / "eval/report.html").read_text()


def test_commavq_is_judged_without_pixels(composed, fit, evaluate, shared):
    tokens = f"data.root={shared}/data/commavq/tokens.npy"
    cut = [o for o in TINY if "carracing" not in o and "debug" not in o]
    small = ["model.network.dim=24", "model.network.num_layers=1", "model.network.num_heads=1"]
    small += ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    small += ["data.batch_size=2", "data.num_val_windows=2"]
    _, run, _ = fit(composed("gpt_tiny", "data=commavq", tokens, *cut, *small))
    with pytest.raises(BadInput, match=r"card=rollout: .* cannot be asked: .*tokens only"):
        evaluate(run.folder, *FEW)
    cards = evaluate(
        run.folder, *(o for o in FEW[1:] if "teacher_forced" in o), "card=teacher_forced"
    )["cards"]
    unigram = cards["teacher_forced"]["scores"]["unigram"]["bits_per_token"]["value"]
    assert unigram == pytest.approx(9.7, abs=0.5)


@pytest.mark.parametrize(
    ("camera", "reconstruction", "readable"),
    [(0.9, 0.6, True), (0.9, 0.1, False), (0.4, 0.9, False), (0.9, None, False)],
)
def test_a_column_is_read_where_real_and_reconstructed_frames_show_it(
    camera: float, reconstruction: float | None, readable: bool
) -> None:
    values = {"camera": camera, "reconstruction": reconstruction}
    found = {k: {"speed_mps": {"correlation": {"value": v}}} for k, v in values.items()}
    trust = column_trust(found, "speed_mps")
    assert trust == {**values, "readable": readable}
