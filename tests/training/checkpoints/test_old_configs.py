"""What configs of earlier releases say of the data is understood."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from drives.carracing.config import CarRacingConfig
from drives.sources import DriveSource
from tokenizer.load import _config, load_tokenizer
from training.checkpoints.manifests import MANIFEST, read_manifest
from training.checkpoints.resume import keep_actions
from worldmodel.evaluation.evidence import data_source, trained_on

ROOT = Path(__file__).parents[3]
OLD_WORLD_MODEL = ROOT / "tests/training/old_checkpoints/schema-1"


@pytest.fixture
def old_tokenizer(tmp_path: Path) -> Path:
    """Its manifest; what it says of its weights is not looked at."""
    shutil.copy(ROOT / "tests/tokenizer/old_checkpoints/schema-1" / MANIFEST, tmp_path)
    (tmp_path / "weights.safetensors").touch()
    return tmp_path


@pytest.mark.parametrize(("kind", "num_train"), [("worldmodel", 2), ("tokenizer", 48)])
def test_its_source_opens_and_its_data_module_is_found(
    kind: str, num_train: int, old_tokenizer: Path
) -> None:
    folder = OLD_WORLD_MODEL if kind == "worldmodel" else old_tokenizer
    manifest = read_manifest(folder, kind)
    config = manifest["config"]
    assert not {"loader", "media", "doctor"} & set(config)
    assert {"image_size", "dim"} & set(config["model"]["network"])
    assert config["callbacks"]["media"]["every_steps"] in (20, 1000)
    assert config["data"]["batch_size"] in (4, 16)
    source = data_source(manifest, {}, folder)
    assert isinstance(source, DriveSource)
    assert source.carracing.num_train == num_train
    assert (source.carracing == CarRacingConfig()) == (kind == "tokenizer")
    assert trained_on(manifest, folder).tokenizer == ("carracing" if kind == "worldmodel" else None)


def test_levels_from_before_there_were_other_quantizers(old_tokenizer: Path) -> None:
    network = read_manifest(old_tokenizer, "tokenizer")["network"]
    assert "quantizer" not in network
    today = load_tokenizer("carracing").network.config
    assert _config(network, "old").quantizer == today.quantizer


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ({"actions": None}, ["timestamp", "steering"]),
        ({"actions": ["steering"]}, ["steering"]),
        ({"format": "store"}, None),
    ],
)
def test_a_run_goes_on_with_the_columns_it_began_with(source: dict, kept: list | None) -> None:
    cfg = OmegaConf.create({"data": {"source": source}})
    keep_actions(cfg, {"action_names": ["timestamp", "steering"]})
    assert cfg.data.source.get("actions") == kept
