"""eval.py of a tokenizer that names no data: one that others published."""

import json
import sys

import numpy as np
import pytest

import eval as evaluation
from drives.writing import write_drive
from tokenizer.published import convert

HALVES = ("encoder_pytorch_model.bin", "decoder_pytorch_model.bin")


@pytest.fixture(scope="module")
def published(shared, tmp_path_factory):
    """commaVQ's, at 16x32 pixels: fewer than LPIPS can see."""
    out = tmp_path_factory.mktemp("published") / "commavq"
    files = [shared / "parity" / "commavq_vqvae" / name for name in HALVES]
    convert("commavq", files, out, image_size=[16, 32], crop="cover")
    return out


@pytest.fixture
def judged(published, tmp_path, monkeypatch):
    """`judged("data.root=...")`: what eval.py writes to metrics.json."""
    monkeypatch.setenv("DASHCAST_DATA", str(tmp_path / "data"))

    def run(*arguments: str):
        out = tmp_path / "eval"
        monkeypatch.setattr(sys, "argv", ["eval.py", f"ckpt={published}", f"out={out}", *arguments])
        evaluation.main()
        return json.loads((out / "metrics.json").read_text())

    return run


def write(root, split: str, name: str = "a", seed: int = 0) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (4, 16, 32, 3), np.uint8)
    meta = {"fps": 20, "split": split, "source": "noise", "licence": "CC0"}
    write_drive(root / name, frames, np.zeros((4, 1)), ["steering"], meta)


def test_test_drives_alone_are_judged_and_small_frames_without_lpips(judged, tmp_path, capsys):
    write(tmp_path / "drives", "test")
    card = judged(f"data.root={tmp_path}/drives")["cards"]["reconstruction"]
    scores = card["scores"]["tokenizer"]
    assert card["means"]["num_frames"] == scores["psnr"]["num_clips"] == 4
    assert scores["psnr"]["value"] > 0
    assert scores["psnr"]["low"] is None  # one drive tells nothing of others
    assert "lpips" not in scores
    said = capsys.readouterr().out
    assert "LPIPS is left out: its frames are 16x32 pixels" in said
    assert "CarRacing" not in said


def test_scores_have_intervals_over_drives_and_a_value_for_every_frame(judged, tmp_path):
    for seed, name in enumerate("abc"):
        write(tmp_path / "drives", "test", name, seed)
    card = judged(f"data.root={tmp_path}/drives")["cards"]["reconstruction"]
    clips = json.loads((tmp_path / "eval/clips.json").read_text())["reconstruction"]
    names = [f"{drive}@{frame}" for drive in "abc" for frame in range(4)]
    assert clips["names"] == card["clips"]["ids"] == names
    assert clips["drives"] == [name[0] for name in names]
    for score, found in card["scores"]["tokenizer"].items():
        values = np.array(clips["values"]["tokenizer"][score])
        assert found["value"] == pytest.approx(values.mean())
        of_drives = values.reshape(3, 4).mean(1)
        assert of_drives.min() <= found["low"] < found["value"] < found["high"] <= of_drives.max()
        assert (found["num_clips"], found["num_drives"]) == (12, 3)


def test_a_split_without_drives_is_named(judged, tmp_path, capsys):
    write(tmp_path / "drives", "train")
    with pytest.raises(SystemExit) as ended:
        judged(f"data.root={tmp_path}/drives")
    assert ended.value.code == 2
    assert "none of the 1 drives is in the test split" in capsys.readouterr().err


def test_where_no_data_is_named_the_embedded_drives_are_and_that_is_said(judged, capsys):
    tiny = ("num_train=1", "num_val=1", "num_test=1", "seconds=1.0")
    scores = judged(*(f"+data.source.carracing.{setting}" for setting in tiny))
    assert scores["cards"]["reconstruction"]["means"]["num_drives"] == 1
    assert "names no data and is judged on the embedded CarRacing drives" in capsys.readouterr().out


def test_a_video_decoder_beside_a_tokenizer_is_refused(judged, capsys):
    with pytest.raises(SystemExit):
        judged("video_decoder=runs/smooth")
    assert "video_decoder=runs/smooth: shows what a world model predicts" in capsys.readouterr().err
