"""VaViM as Lightning wrote it: settings in OmegaConf's objects, read without any of its classes."""

import sys

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from published_files import parity, vavim_files

from training.errors import BadInput
from training.foreign.weights import read_file
from worldmodel.published import open_published


@pytest.fixture
def files(shared, tmp_path):
    return vavim_files(shared, tmp_path)


@pytest.fixture
def direct(shared):
    folder, said = parity(shared, "vam_mupgpt2")
    return open_published(
        "vam_mupgpt2", [folder / "weights.pt", folder / "mup_base_shapes.bsh"], grid=said["grid"]
    )


def test_a_real_checkpoint_is_the_published_model(files, direct, shared):
    with pytest.raises(Exception, match="omegaconf"):
        torch.load(files[0], weights_only=True)
    assert torch.load(files[0], weights_only=False)["callbacks"].keys()
    grid = parity(shared, "vam_mupgpt2")[1]["grid"]
    for given in (files, files[:1]):  # the base shapes lie beside, under the name that it says
        found = open_published("vam_mupgpt2", given, grid=grid)
        assert found.network.config == direct.network.config
        assert found.spec == direct.spec
        for key, tensor in direct.network.state_dict().items():
            assert torch.equal(found.network.state_dict()[key], tensor), key


def test_settings_are_read_without_importing_what_they_are_made_of(files, monkeypatch):
    expected = torch.load(files[0], weights_only=False)["hyper_parameters"]
    network = OmegaConf.to_container(expected["network"], resolve=False)
    assert network["nb_timesteps"] == "${sequence_length}"
    for name in [name for name in sys.modules if name.partition(".")[0] == "omegaconf"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    found = read_file(files[0])["hyper_parameters"]
    assert found["network"] == network
    assert found["optimizer_conf"] == {"lr": 0.0041, "betas": [0.9, 0.95]}
    assert found["mup_base_shapes"] == "./mup_shapes/base.bsh"


@pytest.mark.parametrize("value", ["${heads}", -8, 0, True, [8], "8"])
def test_settings_that_are_no_numbers_are_named_and_may_be_given(value, shared, tmp_path, direct):
    files = vavim_files(shared, tmp_path, dim_heads=value)
    with pytest.raises(BadInput, match=r"dim_heads.*dim_heads=N"):
        open_published("vam_mupgpt2", files)
    dim_heads = parity(shared, "vam_mupgpt2")[1]["model"]["dim_heads"]
    found = open_published("vam_mupgpt2", files, dim_heads=dim_heads)
    assert found.network.config == direct.network.config
    with pytest.raises(BadInput, match="does not divide"):
        open_published("vam_mupgpt2", files, dim_heads=dim_heads - 1)


def test_weights_alone_open_with_what_they_do_not_say(shared, tmp_path, direct):
    folder, said = parity(shared, "vam_mupgpt2")
    torch.save(torch.load(folder / "weights.pt")["state_dict"], tmp_path / "alone.pt")
    options = {
        "dim_heads": said["model"]["dim_heads"],
        "mup_base_width": said["mup_base_embedding_dim"],
    }
    found = open_published("vam_mupgpt2", [tmp_path / "alone.pt"], **options)
    assert found.network.config == direct.network.config


def test_the_id_that_no_frame_holds_is_none_of_the_tokens(shared, tmp_path):
    """16,385 rows for 16,384 codes: upstream's distribution has it, and frames do not."""
    files = vavim_files(shared, tmp_path)
    values = torch.load(files[0], weights_only=False)
    dim = values["state_dict"]["network.transformer.wie.weight"].shape[1]
    rows = 0.02 * torch.randn(16_385, dim, generator=torch.Generator().manual_seed(0))
    values["state_dict"] |= dict.fromkeys(
        ("network.transformer.wie.weight", "network.lm_head.weight"), rows
    )
    torch.save(values, files[0])
    model = open_published("vam_mupgpt2", files, grid=parity(shared, "vam_mupgpt2")[1]["grid"])
    assert model.spec.vocab_size == 16_384
    frames = torch.randint(0, 16_384, (1, 2, *model.spec.grid[1:]))
    assert model.network.sequence_logits(frames.flatten(1)).shape[-1] == 16_385
    assert model.network(frames).shape[-1] == 16_384


class Unknown:
    """A class that a settings object may name, and that nobody knows here."""


def test_other_classes_are_refused(files, tmp_path):
    values = torch.load(files[0], weights_only=False)
    assert ModelCheckpoint.__name__ in str(values["callbacks"])
    values["hyper_parameters"]["network"] = Unknown()
    torch.save(values, files[0])
    with pytest.raises(BadInput, match="refused"):
        open_published("vam_mupgpt2", files)


def test_a_config_that_holds_itself_is_refused(files):
    values = torch.load(files[0], weights_only=False)
    network = values["hyper_parameters"]["network"]
    network.__dict__["_content"]["again"] = network
    torch.save(values, files[0])
    with pytest.raises(BadInput, match="RecursionError"):
        open_published("vam_mupgpt2", files)
