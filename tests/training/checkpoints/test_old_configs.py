"""What configs of earlier releases say of the data is understood."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from drives.carracing.config import CarRacingConfig
from drives.sources import DriveSource
from training.checkpoints.manifests import read_manifest
from training.checkpoints.resume import keep_actions
from worldmodel.evaluation.evidence import data_source, trained_on

ROOT = Path(__file__).parents[3]
OLD = {
    "worldmodel": (ROOT / "tests/training/old_checkpoints/schema-1", 2),
    "tokenizer": (ROOT / "tokenizer/pretrained/carracing", 48),
}


@pytest.mark.parametrize("kind", OLD)
def test_its_source_opens_and_its_data_module_is_found(kind: str) -> None:
    folder, num_train = OLD[kind]
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
