"""python -m tokenizer.convert on every kind of published file: what it says, and its numbers."""

import json
import re
import sys

import pytest
import torch
from published_files import parity
from safetensors.torch import load_file
from vqgan_by_name import ByName

from tokenizer import convert
from tokenizer.load import load_tokenizer

# Names of the frames and of their tokens in a fixture's io.
FRAMES, TOKENS = ("image", "video"), ("indices", "raw_indices")


@pytest.fixture
def converted(tmp_path, monkeypatch, capsys):
    """`converted(name, files, size)`: the tokenizer that the command made, and what it printed."""

    def run(name: str, files, size, *options: str):
        out = tmp_path / "out"
        ckpt = ",".join(map(str, files))
        given = [f"options.image_size=[{size[0]},{size[1]}]", *(f"options.{o}" for o in options)]
        argv = ["convert", f"tokenizer={name}", f"ckpt={ckpt}", f"out={out}", *given]
        monkeypatch.setattr(sys, "argv", argv)
        convert.main()
        said = json.loads((out / "manifest.json").read_text())["published"]
        assert said["name"] == name
        assert sorted(said["files"]) == sorted(file.name for file in files)
        return load_tokenizer(out), capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("name", "fixture", "files", "io"),
    [
        (
            "commavq",
            "commavq_vqvae",
            ["encoder_pytorch_model.bin", "decoder_pytorch_model.bin"],
            "",
        ),
        ("magvit2", "magvit2_ckpt", ["weights.pt"], ""),
        ("driving_simulator", "driving_tokenizer", ["weights.pt"], ""),
        ("cosmos_dv", "cosmos_dv", ["weights_b.safetensors"], "_b"),
    ],
)
def test_tokens_of_a_converted_fixture_are_upstreams(shared, converted, name, fixture, files, io):
    folder, _ = parity(shared, fixture)
    expected = load_file(folder / f"io{io}.safetensors")
    frames = next(expected[key] for key in FRAMES if key in expected)
    tokens = next(expected[key] for key in TOKENS if key in expected)
    if name == "commavq":
        frames = frames / 127.5 - 1
    if name == "cosmos_dv":
        frames, tokens = frames[0].movedim(0, 1), tokens[0]
    height, width = frames.shape[-2:]
    tokenizer, said = converted(name, [folder / file for file in files], (height, width))
    assert torch.equal(tokenizer.encode(frames).flatten(), tokens.flatten())
    spec = tokenizer.spec(1.0)
    rows, columns = spec.grid[1:]
    line = f"{height}x{width} pixels to {rows}x{columns} tokens of {spec.vocab_size}, hash"
    assert line in said
    ends = tokenizer.decode(tokenizer.encode(frames))
    assert ends.shape == frames.shape


@pytest.mark.parametrize(
    ("name", "layout", "dim", "wrapper"),
    [
        ("open_magvit2", "open_magvit2", 6, "state_dict"),
        ("ibq", "taming", 6, "state_dict"),
        ("llamagen", "llamagen", 8, "model"),
    ],
)
def test_tokens_of_a_converted_checkpoint_are_the_second_networks(
    tmp_path, converted, name, layout, dim, wrapper
):
    network = ByName(layout, dim)
    frames = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        tokens = network.tokens(network.latents(frames))
        network.frames(network.looked_up(tokens))
    averages = {f"model_ema.{k.replace('.', '')}": v for k, v in network.weights.items()}
    weights = network.weights | ({} if name == "llamagen" else averages)
    torch.save({wrapper: weights, "epoch": 1}, tmp_path / "published.ckpt")
    tokenizer, said = converted(name, [tmp_path / "published.ckpt"], (8, 12))
    assert torch.equal(tokenizer.encode(frames), tokens)
    assert re.search(rf"{name}, 8x12 pixels to 4x6 tokens of \d+, hash", said)
    assert ("left out: " in said) == (name != "llamagen")
