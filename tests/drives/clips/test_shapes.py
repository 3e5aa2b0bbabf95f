"""Drives of another shape than the recipe's are named before anything is decoded or trained."""

from dataclasses import replace

import numpy as np
import pytest

import training.run as runs
from drives.clips.data_module import ClipDataModule
from drives.clips.shapes import judge_sizes
from drives.drive import open_drive
from drives.folder import open_drives
from drives.sources import DriveSource
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_drives
from tokenizer.load import manifest_of
from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.config import VideoAutoencoderConfig
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput
from training.loading.rates import compare_rates


@pytest.fixture
def drives(tmp_path):
    """`drives(height, width, fps=10, columns=("steering",))`: a folder of three drives."""

    def make(height, width, fps=10, columns=("steering",)):
        root = tmp_path / f"{height}x{width}at{fps}"
        for seed, name in enumerate(("a", "b", "c")):  # no two of which show the same
            rng = np.random.default_rng(seed)
            frames = rng.integers(0, 256, (6, height, width, 3), np.uint8)
            write_drive(root / name, frames, np.zeros((6, len(columns))), columns, {"fps": fps})
        return root

    return make


def clips(root, cache, **settings) -> ClipDataModule:
    return ClipDataModule(DriveSource(str(root), str(cache)), (64, 64), **settings)


def test_another_aspect_is_refused_with_both_remedies(drives, tmp_path):
    root = drives(64, 128)
    with pytest.raises(BadInput) as refused:
        clips(root, tmp_path / "cache").prepare_data()
    for word in ("64x128", "64x64", "50%", "image_size=[64,128]", "data.fit=cover", str(root)):
        assert word in str(refused.value)
    assert not (tmp_path / "cache" / "frames").exists()


def test_an_aspect_that_may_be_cut_passes_and_says_what_is_lost(drives, tmp_path, capsys):
    data = clips(drives(64, 128), tmp_path / "cache", fit="cover")
    data.prepare_data()
    assert data.dataset("train")[0][0].shape == (1, 3, 64, 64)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "note: " in line]
    assert "64x128" in note
    assert "50% of each is cut off" in note


@pytest.mark.parametrize(("size", "lines"), [((64, 64), 0), ((128, 128), 1), ((160, 161), 1)])
def test_a_resize_of_one_aspect_passes_with_one_line(drives, tmp_path, capsys, size, lines):
    clips(drives(*size), tmp_path / "cache").prepare_data()
    notes = [line for line in capsys.readouterr().out.splitlines() if "scaled to 64x64" in line]
    assert len(notes) == lines


def test_the_embedded_drives_are_silent(composed, capsys):
    for experiment in ("tokenizer_tiny", "gpt_tiny"):
        runs.build_data(composed(experiment))
        said = capsys.readouterr().out
        assert "note" not in said
        assert "warning" not in said


def test_a_tokenizer_of_another_aspect_encodes_nothing(drives, tmp_path):
    opened = open_drives(drives(64, 128))
    with pytest.raises(BadInput, match=r"another aspect.*fit=cover") as refused:
        encode_drives(opened, "carracing", tmp_path / "store", ("steering",))
    assert "a tokenizer of their aspect" in str(refused.value)
    assert not (tmp_path / "store").exists()
    config = EncodeConfig(num_workers=0, fit="cover")
    store = encode_drives(opened, "carracing", tmp_path / "store", ("steering",), config)
    assert store.spec.image_size == (64, 64)


def test_real_drives_are_judged(shared, tmp_path, capsys):
    """The Udacity simulator's, as they are recorded: 160x320."""
    for name in ("lake", "mountain"):
        real = shared / "data" / "udacity" / name
        (tmp_path / name).mkdir()
        for file in ("video.mp4", "actions.csv"):
            (tmp_path / name / file).symlink_to(real / file)
        (tmp_path / name / "drive.json").write_text('{"fps": 10}')
    real = [open_drive(tmp_path / name) for name in ("lake", "mountain")]
    assert {drive.frame_size for drive in real} == {next(real[0].frames(0, 1)).shape[:2]}
    height, width = real[0].frame_size
    judge_sizes(real, (height // 5, width // 5), "same", "fit")
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert f"{height}x{width} (height x width) and are scaled to 32x64" in said
    with pytest.raises(BadInput, match=f"{height}x{width}.*another aspect: 50% of each"):
        judge_sizes(real, (64, 64), "same", "fit")


def test_a_recipe_says_so_where_the_data_has_another_rate(drives, composed, tmp_path, capsys):
    root = drives(64, 64, fps=20)
    words = [f"data.root={root}", f"data.source.cache={tmp_path}", "data.context_steps=2"]
    runs.build_data(composed("gpt_tiny", *words))
    said = capsys.readouterr().out
    assert "the data has 20 frames per second, recipe gpt_tiny was made for 10" in said
    assert "data.encode.every=2 makes them equal" in said
    runs.build_data(composed("gpt_tiny", *words, "data.encode.every=2"))
    assert "was made for" not in capsys.readouterr().out
    runs.build_data(composed("gpt_tiny", *words, "fps=null"))
    assert "was made for" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("theirs", "words"), [(10, ""), (10.05, ""), (14, "14"), (5, "5"), (30, "every=3")]
)
def test_rates_are_compared(capsys, theirs, words):
    compare_rates(10, theirs, "it", "the data", "every")
    said = capsys.readouterr().out
    assert words in said if words else not said


def test_missing_columns_are_named_with_those_that_are_there(drives, tmp_path, capsys):
    root = drives(64, 64, columns=("steering", "speed_mps"))
    for wanted in (["brake"], ["steering", "brake"]):
        with pytest.raises(BadInput, match=r"'brake'; columns there: steering, speed_mps"):
            DriveSource(str(root), str(tmp_path), wanted).open()
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    write_drive(root / "d", frames, np.zeros((6, 1)), ("steering",), {"fps": 10})
    source = DriveSource(str(root), str(tmp_path))
    capsys.readouterr()
    assert source.action_names(source.open()) == ("steering",)
    said = capsys.readouterr().out
    assert said.count("note: ") == 1
    assert f"speed_mps of {root / 'a'}" in said
    assert f"{root / 'd'} has steering" in said
    write_drive(root / "e", frames, np.zeros((6, 0)), (), {"fps": 10})
    with pytest.raises(BadInput, match=r"e: has none, .*a has steering, speed_mps.*actions=\[\]"):
        source.open()
    assert DriveSource(str(root), str(tmp_path), []).open()


def test_a_missing_column_of_the_embedded_drives_is_named_before_they_are_made(tmp_path):
    with pytest.raises(BadInput, match=r"no column 'brakes'; there are: steering"):
        DriveSource(None, str(tmp_path), ["brakes"]).open()
    assert not any(tmp_path.iterdir())


def test_a_video_tokenizer_says_so_where_drives_have_another_rate(drives, tmp_path, capsys):
    config = VideoAutoencoderConfig(
        (32, 32), clip_frames=9, space_downsampling=8, channels=8, multipliers=(1, 2)
    )
    config = replace(config, num_res_blocks=1)
    weights = {f"ema.module.{k}": v for k, v in build_network(config).state_dict().items()}
    opened, encode = open_drives(drives(32, 32, fps=20)), EncodeConfig(num_workers=0)
    for fps, words in ((10.0, "every=2 makes them equal"), (20.0, ""), (None, "")):
        path = tmp_path / f"tokenizer-{fps}"
        write_checkpoint(path, weights, {**manifest_of(config), "run": {"fps": fps}})
        encode_drives(opened, path, tmp_path / f"{fps}", ("steering",), encode)
        said = capsys.readouterr().out
        assert ("the tokenizer was made for 10" in said) == bool(words)
        assert words in said
