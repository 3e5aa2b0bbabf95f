"""The commands that open a trained video decoder: the one that judges it, and rollouts."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.folder import open_folders
from drives.writing import write_drive
from tokenizer.load import load_tokenizer
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput
from worldmodel.env.world import open_world
from worldmodel.evaluation.clip_decoder import ClipDecoder
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.load import (
    load_video_decoder,
    manifest_of_decoder,
    video_decoder_for,
)
from worldmodel.video_decoder.networks.config import OnePassDecoderConfig
from worldmodel.video_decoder.networks.kinds import build_video_decoder

HOW = VideoDecodingConfig(overlap=3)
TINY = [
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=2",
    "checkpoints.every_steps=2",
    "data.source.carracing.seconds=5.0",
]


@pytest.fixture
def called(monkeypatch, capsys):
    """`called(module, ...)`: what a command prints."""

    def call(module, *settings):
        monkeypatch.setattr(sys, "argv", [module, *map(str, settings)])
        importlib.import_module(module).main()
        return capsys.readouterr().out

    return call


def test_settings_of_no_video_decoder_are_refused() -> None:
    assert video_decoder_for(None, None, 10.0, VideoDecodingConfig(), "cpu") is None
    with pytest.raises(BadInput, match=r"video\.\*: no video decoder is named"):
        video_decoder_for(None, None, 10.0, HOW, "cpu")


@pytest.mark.parametrize(
    "given", ["prompt_steps=3", "sampling.temperature=2.0", "decoding.method=raster"]
)
def test_settings_of_no_world_model_are_refused(called, capsys, given: str) -> None:
    with pytest.raises(SystemExit):
        called("worldmodel.video_decoder.__main__", "ckpt=none", given)
    assert "no world model is named; give world_model=RUN" in capsys.readouterr().err


def test_cards_that_show_no_frames_refuse_a_video_decoder(called, capsys) -> None:
    with pytest.raises(SystemExit):
        called("eval", "ckpt=carracing", "card=[teacher_forced,floors]", "video_decoder=none")
    assert "card=teacher_forced, floors shows none of its frames" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_shows_rollouts_by_both_decoders(called, tmp_path) -> None:
    """On the same tokens: rows of either, and what the one gains on the other."""
    racing = CarRacingConfig(seed=3, num_train=1, num_val=0, num_test=0, seconds=3.0)
    frames, actions, meta = make_drive(racing, 0)
    for split in ("train", "test"):
        told = {**meta, "split": split}
        write_drive(tmp_path / "drives" / split, frames, actions, ACTION_NAMES, told)
    config = OnePassDecoderConfig(dim=16, num_layers=1, num_heads=2, patch=8, detail=4)
    spec = load_tokenizer("carracing").spec(10.0)
    network = build_video_decoder(config, spec)
    torch.manual_seed(0)
    network.load_state_dict(  # or its last layer is 0, and nothing depends on later frames
        {n: v + 0.05 * torch.randn(v.shape) for n, v in network.state_dict().items()}
    )
    weights = {f"ema.module.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint(tmp_path / "video", weights, manifest_of_decoder(config, spec))
    short = {"version": "short", "num_clips": 1, "prompt_steps": 3, "num_futures": 1}
    asked = ["ckpt=carracing", "card=rollout", f"data.root={tmp_path}/drives"]
    asked += [f"cards.rollout.{name}={value}" for name, value in short.items()]
    video = f"video_decoder={tmp_path}/video"
    found, asked = {}, [*asked, "cards.rollout.horizon_s=0.4", f"paths.data={tmp_path}/data"]
    for out, more in (("own", []), ("both", [video])):
        called("eval", *asked, f"out={tmp_path / out}", *more)
        found[out] = json.loads((tmp_path / out / "metrics.json").read_text())
        page = (tmp_path / out / "report.html").read_text()
        assert ("future 1, video decoder" in page) == (out == "both")
        assert ("ceiling one step ahead: real tokens, video decoder" in page) == (out == "both")
    assert "video_decoder" not in found["own"]
    assert found["both"]["video_decoder"]["checkpoint"] == str(tmp_path / "video")
    own, both = (found[out]["cards"]["rollout"]["scores"] for out in ("own", "both"))
    assert {name: both[name] for name in own} == own
    for system in ("autoregressive", "ceiling_tokenizer", "temporally_teacher_forced"):
        assert {"psnr", "lpips", "flicker", "sharpness"} <= set(own[system])
        assert both[f"{system}, video decoder"]["lpips"] != own[system]["lpips"]
    assert both["ceiling_one_step_ahead, video decoder"] != both["ceiling_tokenizer, video decoder"]
    gain = both["autoregressive, video decoder"]["lpips"]["value"]
    gain -= own["autoregressive"]["lpips"]["value"]
    line = found["both"]["cards"]["rollout"]["lines"][0]
    assert float(line.split("lpips ")[1].split(",")[0]) == pytest.approx(gain, rel=1e-2)
    with pytest.raises(SystemExit):  # prompt and horizon fill no window
        called("eval", *asked, f"out={tmp_path}/no", video, "cards.rollout.horizon_s=0.1")


@pytest.mark.slow
def test_a_run_is_judged_and_makes_the_frames_of_rollouts(composed, fit, called, tmp_path):
    run = fit(composed("video_decoder_tiny", *TINY))[1].folder
    short = ["num_clips=2", "clip_frames=13"]
    said = called("worldmodel.video_decoder.__main__", f"ckpt={run}", *short)
    found = json.loads((run / "video/video.json").read_text())
    names = [(row["rate"], row["name"]) for row in found["rows"]]
    assert names == [
        ("same", "recorded"),
        ("same", "tokenizer"),
        ("same", "video decoder"),
        ("doubled", "repeated"),
        ("doubled", "blended"),
        ("doubled", "interpolated"),
    ]
    assert found["rows"][0]["lpips"] == 0
    assert found["rows"][1]["lpips"] > 0
    assert found["rows"][1]["psnr"] != found["rows"][2]["psnr"]
    assert "video.png" in said
    assert "no fvd: 2 clips of 13 frames hold 0 of 16, and min_clips=64 are needed" in said
    with pytest.raises(SystemExit):  # nothing is overwritten
        called("worldmodel.video_decoder.__main__", f"ckpt={run}", *short)
    with pytest.raises(SystemExit):  # every second frame fills no window
        called("worldmodel.video_decoder.__main__", f"ckpt={run}", "clip_frames=11", "out=x")

    model = fit(composed("gpt_tiny", *TINY, "model.network.num_layers=1"))[1].folder
    dreams = [f"world_model={model}", "prompt_steps=3", f"out={tmp_path}/dreams"]
    assert "dreamt" in called("worldmodel.video_decoder.__main__", f"ckpt={run}", *short, *dreams)
    assert (tmp_path / "dreams/dreams.png").exists()
    found = json.loads((tmp_path / "dreams/video.json").read_text())
    assert [row["tokens"] for row in found["dreams"]["rows"]].count("dreamt") == 2
    asked = [f"ckpt={model}", "num_clips=1", "prompt_steps=3", "drives=true"]
    named = [f"video_decoder={run}", "horizon_s=0.1", f"out={tmp_path}/short"]
    with pytest.raises(SystemExit):  # prompt and horizon fill no window
        called("worldmodel.rollout", *asked, *named)
    assert not (tmp_path / "short").exists()
    frames = []
    for out, more in (("plain", []), ("smooth", [f"video_decoder={run}"])):
        called("worldmodel.rollout", *asked, "horizon_s=0.5", f"out={tmp_path / out}", *more)
        (drive,) = open_folders(tmp_path / out / "drives")
        frames.append(np.stack(list(drive.frames())))
    assert frames[0].shape == frames[1].shape
    assert not np.array_equal(*frames)

    driven = [open_world(str(model), {}, video_decoder=name).dream() for name in (None, str(run))]
    for dream in driven:
        dream.start([open_world(str(model), {}).starts[0]])
    assert not torch.equal(*(dream.frames() for dream in driven))

    tokenizer = load_tokenizer("carracing")
    for other, fps, told in (
        (None, 10.0, "needs the tokenizer"),
        (tokenizer, 20.0, "trained on 10 frames per second"),
        (load_tokenizer("udacity"), 10.0, "was trained on tokens of"),
    ):
        with pytest.raises(BadInput, match=told):
            video_decoder_for(str(run), other, fps, HOW, "cpu")
    with pytest.raises(BadInput, match="is a worldmodel checkpoint, a video_decoder is needed"):
        load_video_decoder(model)
    video = video_decoder_for(str(run), tokenizer, 10.0, HOW, "cpu")
    assert video is not None
    tokens = torch.randint(0, 1000, (1, 9, 8, 8), generator=torch.Generator().manual_seed(0))
    clip = ClipDecoder(tokenizer, tokens, 4, [], video)
    assert torch.equal(clip.real(), torch.cat([clip.prompt, clip.after_prompt(tokens[:, 4:])], 1))
    own = ClipDecoder(tokenizer, tokens, 4, [])
    assert clip.real().shape == own.real().shape
    assert not torch.equal(clip.real(), own.real())
