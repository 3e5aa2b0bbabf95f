"""What configs of earlier releases say of the data is understood."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from drives.carracing.config import CarRacingConfig
from drives.sources import DriveSource
from tokenizer.load import _config, load_tokenizer
from training.checkpoints.manifests import MANIFEST
from training.checkpoints.resume import keep_actions
from worldmodel.evaluation.evidence import data_source, trained_on

ROOT = Path(__file__).parents[3]
OLD = {
    "worldmodel": (ROOT / "tests/training/old_checkpoints/schema-1", 2),
    "tokenizer": (ROOT / "tests/tokenizer/old_checkpoints/schema-1", 48),  # its manifest alone
}


def manifest_in(folder: Path) -> dict[str, Any]:
    """Without the checks of `read_manifest`, which asks for the weights."""
    return dict(json.loads((folder / MANIFEST).read_text()))


@pytest.mark.parametrize("kind", OLD)
def test_its_source_opens_and_its_data_module_is_found(kind: str) -> None:
    folder, num_train = OLD[kind]
    manifest = manifest_in(folder)
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


def test_levels_from_before_there_were_other_quantizers() -> None:
    network = manifest_in(OLD["tokenizer"][0])["network"]
    assert "quantizer" not in network
    assert _config(network, "old") == load_tokenizer("carracing").network.config


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
