"""What opens a video decoder refuses, before it reads what costs time."""

import shutil
from pathlib import Path

import pytest

from drives.tokens.spec import TokenSpec
from tokenizer.load import load_tokenizer
from training.checkpoints.folder import write_checkpoint
from training.checkpoints.manifests import WEIGHTS
from training.errors import BadInput
from worldmodel.load import PRETRAINED
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.load import load_video_decoder, manifest_of_decoder
from worldmodel.video_decoder.networks.config import DiffusionDecoderConfig, OnePassDecoderConfig
from worldmodel.video_decoder.networks.kinds import build_video_decoder

SMALL = {"dim": 16, "num_layers": 1, "num_heads": 2, "patch": 8, "detail": 4}


def written(folder: Path, kind: type) -> Path:
    config, spec = kind(**SMALL), load_tokenizer("carracing").spec(10.0)
    assert isinstance(spec, TokenSpec)
    network = build_video_decoder(config, spec)
    weights = {f"ema.module.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint(folder, weights, manifest_of_decoder(config, spec))
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
    shutil.copytree(PRETRAINED / "carracing", folder)
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    for path in (folder, tmp_path):
        with pytest.raises(BadInput, match="is a worldmodel checkpoint, a video_decoder is needed"):
            load_video_decoder(path)
