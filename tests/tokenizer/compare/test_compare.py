"""The comparison: measures that mean what they say, one table, one page, clear refusals."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.preprocessing import Preprocessing, resize
from drives.folder import open_drives
from drives.video import num_frames
from drives.writing import write_drive
from tokenizer.compare import command as compare
from tokenizer.compare import scores as compare_scores
from tokenizer.compare.command import (
    choose_clips,
    choose_source,
    common_view,
    side_by_side,
)
from tokenizer.compare.scores import Judge, adaptive_code_bits, score_tokenizer
from tokenizer.evaluation import evaluate_tokenizer
from tokenizer.load import Tokenizer, load_tokenizer, manifest_of
from tokenizer.losses.lpips import load_lpips
from tokenizer.metrics import flicker
from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.config import AutoencoderConfig
from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.quantizers.config import FSQConfig
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    config = CarRacingConfig(seed=5, num_train=2, num_val=0, num_test=0, seconds=2.4)
    for index, split in enumerate(("train", "test")):
        frames, actions, meta = make_drive(config, index)
        write_drive(folder / f"d{index}", frames, actions, ACTION_NAMES, {**meta, "split": split})
    return folder


def untrained(size=(64, 64), levels=(4, 4)):
    torch.manual_seed(0)
    quantizer = FSQConfig(levels=levels)
    config = AutoencoderConfig(size, quantizer, patch=4, channels=(8, 8), attention=False)
    return Tokenizer(Autoencoder(config), "0" * 64, manifest_of(config))


def save(tokenizer, folder):
    weights = {f"ema.module.{k}": v for k, v in tokenizer.network.state_dict().items()}
    write_checkpoint(folder, weights, tokenizer.manifest)
    return folder


def test_an_error_that_stands_still_does_not_flicker():
    real = (torch.rand(1, 3, 8, 8) + torch.arange(6.0)[:, None, None, None]) / 7
    wrong, still = flicker(real + 0.1, real)
    assert wrong == pytest.approx(0, abs=1e-4)
    assert math.isnan(still)  # nothing stands still
    frozen = real[:1].expand(6, -1, -1, -1).clone()
    noise = torch.randn(6, 3, 8, 8) * 0.02
    wrong, still = flicker(frozen + noise, frozen)
    # The mean size of a difference of two normal numbers: 2 sigma / sqrt(pi).
    assert wrong == pytest.approx(127.5 * 2 * 0.02 / math.sqrt(math.pi), rel=0.1)
    assert still == wrong
    half = frozen.clone()
    half[:, :, :4] += torch.arange(6.0)[:, None, None, None] * 0.1  # the upper half moves
    assert flicker(half, half)[1] == 0
    moving_noise = half.clone()
    moving_noise[:, :, :4] += noise[:, :, :4]
    wrong, still = flicker(moving_noise, half)
    assert still == 0 < wrong


def test_adaptive_code_bits_are_those_of_a_coder_that_learns_as_it_goes():
    rng = np.random.default_rng(0)
    tokens = rng.choice(5, size=400, p=[0.6, 0.2, 0.1, 0.1, 0.0])
    counts, bits = np.zeros(5), 0.0
    for token in tokens:
        bits -= math.log2((counts[token] + 0.5) / (counts.sum() + 2.5))
        counts[token] += 1
    ours = adaptive_code_bits(torch.from_numpy(counts).long())
    assert ours == pytest.approx(bits)
    share = counts[counts > 0] / counts.sum()
    assert ours > -400 * (share * np.log2(share)).sum()


def test_scores_are_those_of_eval(root):
    drives = [drive for drive in open_drives(root) if drive.split == "test"]
    tokenizer, perceptual = load_tokenizer("carracing"), load_lpips("alex")
    clips = choose_clips(drives, 99, 8, (64, 64))
    assert len(clips.places) == 3
    scores = score_tokenizer(tokenizer, clips, Judge(perceptual, "cpu"))
    known = evaluate_tokenizer(tokenizer, drives, perceptual, "cpu").means
    for name in ("psnr", "ssim", "lpips"):
        assert getattr(scores, name) == pytest.approx(known[name], rel=1e-4)
    assert scores.num_frames == known["num_frames"] == 24
    assert scores.usage == known["codebook_usage"]
    assert scores.entropy_bits == pytest.approx(known["codebook_entropy_bits"])
    assert scores.bits_per_frame == known["bits_per_frame"]
    assert scores.entropy_bits * 64 < scores.coded_bits_per_frame < scores.bits_per_frame
    assert scores.rfid is None
    assert scores.num_parameters == sum(p.numel() for p in tokenizer.parameters())
    assert min(scores.encode_fps, scores.decode_fps) > 1
    assert 0 < known["fixed_pattern_levels"] < 2
    board = 0.04 * (torch.arange(64)[:, None] // 2 + torch.arange(64) // 2).remainder(2)
    with pytest.MonkeyPatch.context() as patch:
        decode = tokenizer.network.decode
        patch.setattr(tokenizer.network, "decode", lambda tokens: decode(tokens) + board)
        worse = evaluate_tokenizer(tokenizer, drives, None, "cpu").means
    assert worse["fixed_pattern_levels"] == pytest.approx(0.02 * 127.5, rel=0.3)


class Features(nn.Module):
    """Stands for Inception: what counts here is when it is asked, and for what."""

    calls = 0

    def forward(self, images):
        self.calls += len(images)
        return images.mean((2, 3))


def test_rfid_compares_with_recorded_frames_that_are_looked_at_once(root, monkeypatch):
    monkeypatch.setattr(compare_scores, "FEATURES", 3)
    drives = [drive for drive in open_drives(root) if drive.split == "test"]
    judge = Judge(lambda x, y: (x - y).abs().mean((1, 2, 3)), "cpu", Features())
    clips = choose_clips(drives, 99, 8, (64, 64))
    good = score_tokenizer(load_tokenizer("carracing"), clips, judge)
    assert judge.inception.calls == 48
    bad = score_tokenizer(untrained(), clips, judge)
    assert judge.inception.calls == 72
    assert 0 <= good.rfid < 0.05 * bad.rfid


def test_tokenizers_of_other_sizes_are_compared_at_the_largest(root):
    drives = [drive for drive in open_drives(root) if drive.split == "test"]
    small = untrained((32, 32))
    view = common_view({"small": small, "large": untrained((64, 64))})
    assert view == ((64, 64), Preprocessing())
    clips = choose_clips(drives, 1, 4, *view)
    judge = Judge(lambda x, y: (x - y).abs().mean((1, 2, 3)), "cpu")
    scores = score_tokenizer(small, clips, judge)
    assert (scores.image_size, scores.tokens_per_frame) == ((32, 32), 16)
    with pytest.raises(BadInput, match="a takes frames of 64x64, b of 32x64"):
        common_view({"a": untrained(), "b": untrained((32, 64))})


def test_what_is_compared_is_the_part_of_a_frame_that_the_tokenizers_see(root):
    cut = Preprocessing(window=(32, 32), offset=(-8, 4))
    tokenizer = untrained((48, 48))
    tokenizer.preprocessing = cut
    size, preprocessing = common_view({"cut": tokenizer})
    assert (size, preprocessing) == ((48, 48), cut)
    clips = choose_clips(open_drives(root), 1, 2, size, preprocessing)
    (frames,) = clips
    assert torch.equal(clips.fit(frames), tokenizer.fit(frames))
    assert not torch.equal(clips.fit(frames), resize(frames, size))
    with pytest.raises(BadInput, match=r"cuts \(32, 32\) from a frame, b nothing"):
        common_view({"a": tokenizer, "b": untrained((48, 48))})


def test_video_tokenizers_are_compared_on_the_frames_that_make_whole_steps(root, tmp_path):
    torch.manual_seed(0)
    config = VideoAutoencoderConfig(
        (32, 32),
        FSQConfig((4, 4)),
        clip_frames=9,
        time_downsampling=4,
        space_downsampling=8,
        channels=8,
        multipliers=(1, 2),
        num_res_blocks=1,
    )
    tokenizer = Tokenizer(build_network(config), "0" * 64, manifest_of(config))
    drives = [drive for drive in open_drives(root) if drive.split == "test"]
    judge = Judge(lambda x, y: (x - y).abs().mean((1, 2, 3)), "cpu")
    clips = choose_clips(drives, 2, 11, (32, 32))
    scores = score_tokenizer(tokenizer, clips, judge)
    assert scores.num_frames == 2 * 9  # one and twice four of eleven
    assert scores.tokens_per_frame == 16 / 4
    assert scores.bits_per_frame == 4 * 4
    assert 0 < scores.coded_bits_per_frame < 1.2 * scores.bits_per_frame
    image = untrained((32, 32))
    side_by_side(tmp_path / "v.mp4", {"video": tokenizer, "image": image}, clips, 10.0)
    assert num_frames(tmp_path / "v.mp4") == 9


def test_clips_are_spread_over_the_drives_and_stay_inside(root):
    drives = open_drives(root)
    assert choose_clips(drives, 2, 10, (64, 64)).places == [(0, 0), (1, 10)]
    assert len(choose_clips(drives, 99, 10, (64, 64)).places) == 4
    with pytest.raises(BadInput, match="longest drive of the split has 24 frames"):
        choose_clips(drives, 1, 25, (64, 64))


def test_the_drives_are_those_of_the_training_unless_they_differ():
    def trained_on(root):
        tokenizer = untrained()
        data = {"_target_": "drives.sources.DriveSource", "root": root}
        tokenizer.manifest = {**tokenizer.manifest, "config": {"data": {"source": data}}}
        return tokenizer

    a, b, unknown = trained_on("x"), trained_on("y"), untrained()
    assert choose_source({"a": a, "u": unknown}, None, "c").root == "x"
    assert choose_source({"a": a, "b": b}, "z", "c").root == "z"
    assert choose_source({"u": unknown}, None, "c").embedded
    with pytest.raises(BadInput, match="a was trained on x, b on y"):
        choose_source({"a": a, "b": b}, None, "c")


@pytest.fixture
def command(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        few = ["num_clips=2", "clip_frames=4", "video_clips=1", "video_s=0.4"]
        monkeypatch.setattr(sys, "argv", ["compare", *arguments, *few, f"data.root={root}"])
        compare.main()
        return json.loads((tmp_path / "runs" / "compare" / "compare.json").read_text())

    return run


def test_one_command_gives_table_page_and_video(command, tmp_path, capsys):
    save(untrained(), tmp_path / "mine")
    result = command("carracing", "mine")
    good, bad = result["tokenizers"]["carracing"], result["tokenizers"]["mine"]
    assert good["psnr"] > bad["psnr"]
    assert good["path"] == "carracing"
    assert result["data"]["num_frames"] == 8
    assert result["rfid"].startswith("not measured, it needs inception=FILE")
    folder = tmp_path / "runs" / "compare"
    page = (folder / "compare.html").read_text()
    for part in ("data:video/mp4;base64,", "<svg", f"{good['psnr']:.2f} *", "rFID", "mine"):
        assert part in page
    assert "src='http" not in page
    shown = capsys.readouterr().out
    assert f"{bad['lpips']:.4f}" in shown
    again = command("mine", "split=train")  # a new comparison takes the old one's place
    assert list(again["tokenizers"]) == ["mine"]
    assert again["data"]["split"] == "train"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name tokenizers"),
        (["nowhere"], "nowhere: no such run or checkpoint; shipped: carracing"),
        (["carracing", "carracing"], "given twice"),
        (["carracing", "split=val"], "no drive is in the val split"),
        (["carracing", "inception=gone.pth"], "gone.pth: no such file"),
        (["carracing", "device=cuda:9"], "device=cuda:9: cannot be used"),
        (["carracing", "out=."], "is no comparison of ours"),
    ],
)
def test_bad_input_is_refused(arguments, words, command, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_are_short_where_they_differ(tmp_path):
    (tmp_path / "x").mkdir()
    first, second = save(untrained(), tmp_path / "a"), save(untrained(), tmp_path / "x" / "a")
    assert list(compare.open_tokenizers([str(first), "carracing"])) == ["a", "carracing"]
    assert list(compare.open_tokenizers([str(first), str(second)])) == [str(first), str(second)]
