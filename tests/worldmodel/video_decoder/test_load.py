"""The shipped video decoder, and what opening one refuses before it costs time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.preprocessing import to_pixels
from drives.folder import open_drives
from drives.tokens.spec import TokenSpec
from drives.writing import write_drive
from tokenizer.load import load_tokenizer
from tokenizer.metrics import psnr
from training.checkpoints.folder import open_checkpoint, write_checkpoint
from training.checkpoints.manifests import MANIFEST, WEIGHTS
from training.errors import BadInput
from worldmodel.load import PRETRAINED as WORLD_MODELS
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.load import (
    PRETRAINED,
    export_video_decoder,
    load_video_decoder,
    manifest_of_decoder,
)
from worldmodel.video_decoder.networks.config import DiffusionDecoderConfig, OnePassDecoderConfig
from worldmodel.video_decoder.networks.kinds import build_video_decoder

SMALL = {"dim": 16, "num_layers": 1, "num_heads": 2, "patch": 8, "detail": 4}


def written(folder: Path, kind: type, **facts: object) -> Path:
    config, spec = kind(**SMALL), load_tokenizer("carracing").spec(10.0)
    assert isinstance(spec, TokenSpec)
    network = build_video_decoder(config, spec)
    weights = {f"ema.module.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint(folder, weights, {**manifest_of_decoder(config, spec), **facts})
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_steps", 2), ("image_share", 0.5), ("image_weight", 0.1), ("seed", 1)],
)
def test_settings_of_noise_are_refused_where_there_is_none(
    tmp_path: Path, name: str, value: float
) -> None:
    how = VideoDecodingConfig(**{name: value})
    one_pass = written(tmp_path / "one_pass", OnePassDecoderConfig)
    with pytest.raises(BadInput, match=rf"video\.{name}={value}: .* decodes in one pass"):
        load_video_decoder(one_pass, "carracing", how)
    overlap = VideoDecodingConfig(overlap=1)
    assert load_video_decoder(one_pass, "carracing", overlap).how == overlap
    diffusion = written(tmp_path / "diffusion", DiffusionDecoderConfig)
    assert load_video_decoder(diffusion, "carracing", how).how == how


def test_a_checkpoint_of_another_kind_is_refused_before_its_weights_are_read(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "checkpoints/step-000001"
    shutil.copytree(WORLD_MODELS / "carracing", folder)
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    for path in (folder, tmp_path):
        with pytest.raises(BadInput, match="is a worldmodel checkpoint, a video_decoder is needed"):
            load_video_decoder(path)


def test_the_shipped_one_is_small_and_names_no_place_of_its_training() -> None:
    folder = PRETRAINED / "carracing"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    assert {value.dtype for value in open_checkpoint(folder).weights.values()} == {torch.float16}
    text = (folder / MANIFEST).read_text()
    assert "/work" not in text
    assert "/tmp" not in text
    with pytest.raises(BadInput, match=r"video_decoder=carracin: no such run .*; shipped: carr"):
        load_video_decoder("carracin", setting="video_decoder")


def test_the_shipped_one_gains_on_a_track_that_nobody_saw(tmp_path: Path) -> None:
    """On test drives it gains 0.44 dB on a decoder that learnt the same frames, one at a time."""
    fresh = CarRacingConfig(seed=77, num_train=1, num_val=0, num_test=0, seconds=4.0)
    frames, actions, meta = make_drive(fresh, 0)
    write_drive(tmp_path / "drive", frames, actions, ACTION_NAMES, meta)
    (drive,) = open_drives(tmp_path)
    recorded = torch.from_numpy(np.stack(list(drive.frames(20, 33))))
    clip = to_pixels(rearrange(recorded, "t h w c -> 1 t c h w"))
    decoder = load_video_decoder("carracing")
    tokens = decoder.tokenizer.encode(clip)
    videos = decoder.tokenizer.decode(tokens), decoder.decode(tokens)
    own, ours = (psnr(video[0], clip[0]).mean() for video in videos)
    assert ours > own + 0.4


def test_an_export_decodes_as_its_run_and_cannot_be_resumed(tmp_path: Path) -> None:
    told = {"run": "/here", "paths": {"runs": "/here"}, "logger": {"csv": {"save_dir": "/here"}}}
    command = {"command": "train.py seed=1 run=/here paths.runs=/here"}
    run = written(tmp_path / "run", OnePassDecoderConfig, config=told, run=command)
    export_video_decoder(run, tmp_path / "export", trained={"command": "mine"})
    ours, theirs = (load_video_decoder(tmp_path / n, "carracing") for n in ("run", "export"))
    for one, other in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(one.half().float(), other)
    manifest = theirs.manifest
    assert list(manifest["files"]) == [WEIGHTS]
    assert manifest["trained"] == {"command": "mine"}
    assert manifest["run"] == {"command": "train.py seed=1"}
    assert "/here" not in (tmp_path / "export" / MANIFEST).read_text()
