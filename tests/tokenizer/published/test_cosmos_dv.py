"""Cosmos discrete video tokenizers: upstream's numbers, strict keys, archives never run."""

import json
import os
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from einops import rearrange
from named_modules import Traced, Tree
from safetensors.torch import load_file, save_file

from tokenizer import convert
from tokenizer.load import load_tokenizer
from tokenizer.networks.video.haar import haar, inverse_haar
from tokenizer.networks.video.video_autoencoder import VideoAutoencoder
from tokenizer.published import cosmos_dv, open_published
from tokenizer.published.cosmos_dv import CosmosDV
from tokenizer.quantizers.config import FSQConfig
from training.errors import BadInput

TOLERANCE = {"atol": 2e-4, "rtol": 0}


def opened(folder: Path, variant: str) -> VideoAutoencoder:
    size = load_file(folder / f"io_{variant}.safetensors")["video"].shape[-2:]
    files = [folder / f"weights_{variant}.safetensors"]
    network = open_published("cosmos_dv", files, image_size=size).network
    assert isinstance(network, VideoAutoencoder)
    return network


@pytest.mark.parametrize("variant", ["a", "b"])
def test_numbers_are_upstreams(shared, variant):
    folder = shared / "parity/cosmos_dv"
    io, network = load_file(folder / f"io_{variant}.safetensors"), opened(folder, variant)
    facts = json.loads((folder / "config.json").read_text())["variants"][variant]["model"]
    assert tuple(network.config.quantizer.levels) == tuple(facts["levels"])
    assert network.config.time_downsampling == facts["temporal_compression"]
    assert network.config.space_downsampling == facts["spatial_compression"]
    with torch.no_grad():
        torch.testing.assert_close(network.encoder(io["video"]), io["latent"], **TOLERANCE)
    frames = rearrange(io["video"], "b c t h w -> b t c h w")
    assert torch.equal(network.encode(frames), io["indices"])
    assert torch.equal(network.encode(frames[:, :1]), io["image_indices"])


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize(
    ("tokens", "pixels"),
    [
        ("indices", "reconstruction"),
        ("random_indices", "decoded"),
        ("image_indices", "image_reconstruction"),
    ],
)
def test_decoded_pixels_are_upstreams(shared, variant, tokens, pixels):
    folder = shared / "parity/cosmos_dv"
    io, network = load_file(folder / f"io_{variant}.safetensors"), opened(folder, variant)
    codes = rearrange(network.quantizer.decode(io[tokens]), "b t h w d -> b d t h w")
    with torch.no_grad():
        # Random weights leave [-1, 1]: what `decode` clamps is compared before.
        torch.testing.assert_close(network.decoder(codes), io[pixels], **TOLERANCE)
    clamped = rearrange(io[pixels], "b c t h w -> b t c h w").clamp(-1, 1)
    torch.testing.assert_close(network.decode(io[tokens]), clamped, **TOLERANCE)


def test_haar_patches_are_upstreams(shared):
    io = load_file(shared / "parity/cosmos_dv/io_b.safetensors")
    first = io["video"][:, :, :1]
    patches = haar(torch.cat([first, io["video"]], 2))
    torch.testing.assert_close(patches, io["patches"], **TOLERANCE)
    torch.testing.assert_close(inverse_haar(patches)[:, :, 1:], io["unpatched"], **TOLERANCE)


@pytest.fixture(scope="module")
def small(shared):
    """What config.json says of variant b, which the tests of files are made of."""
    values = json.loads((shared / "parity/cosmos_dv/config.json").read_text())
    return values["variants"]["b"]


@pytest.fixture(scope="module")
def size(small):
    return tuple(small["video_shape"][-2:])


def bfloat16(weights: dict[str, torch.Tensor], starts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    kept = {k: v for k, v in weights.items() if k.startswith(starts)}
    return {k: v.bfloat16() if v.is_floating_point() else v for k, v in kept.items()}


@pytest.fixture(scope="module")
def archives(shared, tmp_path_factory):
    """What is published: encoder.jit, decoder.jit and autoencoder.jit, in bfloat16.

    The dequantiser, with which the decoder begins, wraps the quantizer with its tables.
    """
    weights = load_file(shared / "parity/cosmos_dv/weights_b.safetensors")
    wrapped = {f"inv_quant.{k}": v for k, v in bfloat16(weights, ("quantizer.",)).items()}
    assert "inv_quant.quantizer._levels" in wrapped
    folder = tmp_path_factory.mktemp("cosmos")
    for name, part in {
        "encoder.jit": bfloat16(weights, ("encoder.", "quant_conv.", "quantizer.")),
        "decoder.jit": wrapped | bfloat16(weights, ("post_quant_conv.", "decoder.")),
        "autoencoder.jit": bfloat16(weights, ("",)),
    }.items():
        torch.jit.trace(Traced(part), torch.ones(1)).save(str(folder / name))
    return folder


@pytest.fixture(scope="module")
def pair(archives):
    return [archives / "encoder.jit", archives / "decoder.jit"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize(
    "names", [("encoder", "decoder"), ("decoder", "encoder"), ("autoencoder",)]
)
def test_published_archives_open_without_being_run(names, archives, shared, monkeypatch, size):
    monkeypatch.setattr(torch.jit, "load", None)
    opened = CosmosDV(size).open([archives / f"{name}.jit" for name in names])
    expected = CosmosDV(size).open([shared / "parity/cosmos_dv/weights_b.safetensors"])
    assert opened.config == expected.config
    tables = [
        k.replace("quantizer", "inv_quant.quantizer") for k in expected.left_out if k[0] == "q"
    ]
    wrapped = sorted([*expected.left_out, *tables])
    assert opened.left_out == (expected.left_out if names == ("autoencoder",) else wrapped)
    assert opened.weights.keys() == expected.weights.keys()
    for key, value in opened.weights.items():
        assert torch.equal(value, expected.weights[key].bfloat16().float()), key


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_archive_whose_code_would_raise_opens(pair, shared, tmp_path, size):
    weights = load_file(shared / "parity/cosmos_dv/weights_b.safetensors")
    part = bfloat16(weights, ("encoder.", "quant_conv.", "quantizer."))
    torch.jit.script(Tree(part)).save(str(tmp_path / "encoder.jit"))
    opened = CosmosDV(size).open([tmp_path / "encoder.jit", pair[1]])
    assert opened.weights.keys() == CosmosDV(size).open(pair).weights.keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_halves_of_two_tokenizers_are_refused(pair, shared, tmp_path, size):
    """Codes of the same width whose levels differ: the encoder's tokens mean others."""
    weights = load_file(shared / "parity/cosmos_dv/weights_b.safetensors")
    levels = {"quantizer._levels": weights["quantizer._levels"] + 1}
    other = bfloat16(weights, ("encoder.", "quant_conv.", "quantizer.")) | levels
    torch.jit.trace(Traced(other), torch.ones(1)).save(str(tmp_path / "encoder.jit"))
    with pytest.raises(BadInput, match="both halves of one tokenizer"):
        CosmosDV(size).open([tmp_path / "encoder.jit", pair[1]])


def test_a_pickled_state_dict_opens_as_well(shared, tmp_path):
    file = shared / "parity/cosmos_dv/weights_a.safetensors"
    torch.save(load_file(file), tmp_path / "both.pt")
    opened, expected = CosmosDV().open([tmp_path / "both.pt"]), CosmosDV().open([file])
    assert opened.config == expected.config
    assert all(torch.equal(value, expected.weights[key]) for key, value in opened.weights.items())
    assert tuple(opened.config.image_size) == (640, 1024)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_the_convert_command_writes_a_tokenizer_that_is_the_published_one(
    pair, tmp_path, monkeypatch, capsys, small, size
):
    out = tmp_path / "out"
    arguments = [
        f"ckpt={pair[0]},{pair[1]}",
        f"options.image_size=[{size[0]},{size[1]}]",
        f"out={out}",
    ]
    monkeypatch.setattr("sys.argv", ["convert", "tokenizer=cosmos_dv", *arguments])
    convert.main()
    rows, columns = small["latent_shape"][-2:]
    assert f"{rows}x{columns} tokens" in capsys.readouterr().out
    opened = load_tokenizer(out)
    direct = open_published("cosmos_dv", pair, image_size=size)
    assert opened.hash == direct.hash
    assert opened.spec(10.0) == direct.spec(10.0)
    assert opened.frames_per_step == small["model"]["temporal_compression"]
    count, codes = 1 + 2 * opened.frames_per_step, small["codebook_size"]
    frames = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = torch.cat(list(opened.encode_stream(frames.split(4))))
    assert torch.equal(tokens, direct.encode(frames))
    pixels = torch.cat(list(opened.decode_stream(tokens.split(1))))
    torch.testing.assert_close(pixels, direct.decode(tokens), **TOLERANCE)
    with pytest.raises(BadInput, match=rf"0\.\.{codes - 1}"):
        list(opened.decode_stream([tokens + codes]))
    with pytest.raises(BadInput, match="in \\[-1, 1\\]"):
        list(opened.encode_stream([frames * 255]))


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_archive_that_wants_to_run_something_is_refused(pair, tmp_path, size):
    bad = tmp_path / "encoder.jit"
    with zipfile.ZipFile(pair[0]) as good, zipfile.ZipFile(bad, "w") as archive:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("data.pkl"):
                content = pickle.dumps(Harm(tmp_path / "harm"), protocol=2)
            archive.writestr(name, content)
    with pytest.raises(BadInput, match=r"encoder.jit.*mkdir.*refused"):
        CosmosDV(size).open([bad, pair[1]])
    assert not (tmp_path / "harm").exists()
    torch.save({"encoder": Harm(tmp_path / "harm")}, tmp_path / "bad.pt")
    with pytest.raises(BadInput, match=r"bad\.pt"):
        CosmosDV().open([tmp_path / "bad.pt"])
    assert not (tmp_path / "harm").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_half_a_pair_and_damaged_files_are_named(pair, tmp_path):
    with pytest.raises(BadInput, match=r"decoder.conv_in.*encoder.jit and decoder.jit"):
        CosmosDV().open(pair[:1])
    with pytest.raises(BadInput, match="again"):
        CosmosDV().open([*pair, pair[0]])
    with pytest.raises(BadInput, match="no such file"):
        CosmosDV().open([tmp_path / "absent.jit"])
    broken = tmp_path / "encoder.jit"
    with zipfile.ZipFile(pair[0]) as good, zipfile.ZipFile(broken, "w") as archive:
        for name in good.namelist():
            content = good.read(name)
            archive.writestr(name, content[:-3] if "/data/" in name else content)
    with pytest.raises(BadInput, match=r"encoder.jit.*bytes"):
        CosmosDV().open([broken, pair[1]])
    broken.write_bytes(pair[0].read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"encoder\.jit"):
        CosmosDV().open([broken, pair[1]])


def archive_of(module: object, file: Path) -> Path:
    """An archive whose pickle holds `module`."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data.pkl", pickle.dumps(module, protocol=2))
    return file


def test_an_archive_that_holds_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "__torch__", types.ModuleType("__torch__"))
    kind = type("M", (), {"__module__": "__torch__"})
    sys.modules["__torch__"].M = kind
    module = kind()
    module.inner = module
    with pytest.raises(BadInput, match=r"encoder\.jit: is no readable TorchScript archive"):
        CosmosDV().open([archive_of(module, tmp_path / "encoder.jit")])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_data_that_are_compressed_are_refused_before_they_are_read(pair, tmp_path):
    """Torch stores tensors as they are; a gigabyte of zeros is a megabyte compressed."""
    bomb = tmp_path / "encoder.jit"
    with zipfile.ZipFile(pair[0]) as good, zipfile.ZipFile(bomb, "w") as archive:
        for name in good.namelist():
            how = zipfile.ZIP_DEFLATED if name.endswith("/data/0") else zipfile.ZIP_STORED
            archive.writestr(name, good.read(name), how)
    with pytest.raises(BadInput, match=r"encoder\.jit: .*/data/0 is compressed"):
        CosmosDV((16, 24)).open([bomb, pair[1]])


def test_leftover_missing_and_misshapen_keys_are_named(shared, tmp_path):
    weights = load_file(shared / "parity/cosmos_dv/weights_a.safetensors")
    key = "decoder.mid.block_2.conv1.1.conv3d.weight"
    for change, message in [
        ({"decoder.extra.weight": torch.zeros(1)}, r"no place for: decoder\.extra"),
        ({key: None}, f"lacks {key};"),
        ({key: torch.zeros(1, 2)}, f"{key} is"),
        ({"quantizer.project_in.weight": torch.zeros(1)}, r"no place for: quantizer\.project_in"),
        ({"quantizer._levels": torch.tensor([8, 8])}, "FSQ levels"),
        ({"quantizer._levels": torch.tensor([8.5, 8, 5, 4])}, "tables damaged"),
        ({"quantizer._levels": torch.tensor([1, 8, 5, 4])}, "tables damaged"),
        ({"encoder.conv_in.0.conv3d.weight": torch.zeros(3)}, "5 sides of at least 1"),
        ({"quant_conv.conv3d.weight": torch.tensor(1.0)}, "5 sides of at least 1"),
    ]:
        changed = {k: v for k, v in {**weights, **change}.items() if v is not None}
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(BadInput, match=message):
            CosmosDV().open([tmp_path / "changed.safetensors"])


def test_levels_are_the_files_or_the_ones_given(shared, tmp_path, small):
    file = shared / "parity/cosmos_dv/weights_b.safetensors"
    levels = (9,) * small["model"]["embedding_dim"]  # what the fixture's are not
    with pytest.raises(BadInput, match=rf"{re.escape(str(list(levels)))}.*which have"):
        CosmosDV(levels=levels).open([file])
    weights = {k: v for k, v in load_file(file).items() if not k.startswith("quantizer.")}
    save_file(weights, tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match=f"{len(levels)} channels of codes; give"):
        CosmosDV().open([tmp_path / "bare.safetensors"])
    opened = CosmosDV(levels=levels).open([tmp_path / "bare.safetensors"])
    assert opened.config.quantizer == FSQConfig(levels)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_every_published_key_is_used_once(shared, variant):
    path = shared / f"parity/cosmos_dv/weights_{variant}.safetensors"
    opened = CosmosDV().open([path])
    used = [k for ours in opened.weights for k in cosmos_dv.published_keys(ours, opened.config)]
    assert len(used) == len(set(used))
    rest = load_file(path).keys() - set(used)
    assert sorted(rest) == opened.left_out
    assert all("patcher3d" in key or key.startswith("quantizer.") for key in rest)
