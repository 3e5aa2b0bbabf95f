"""Files of published GPTs: other shapes open too, every key is accounted for, and so are faults."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_files import parity
from safetensors.torch import load_file, save_file

from training.errors import BadInput
from worldmodel import convert as command
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.load import load_world_model
from worldmodel.published import ADAPTERS, convert, open_published
from worldmodel.published.commavq_gpt import TRANSPOSED
from worldmodel.published.commavq_gpt import sources as commavq_names
from worldmodel.published.cosmos_ar import CosmosAR


@pytest.fixture
def comma(shared):
    return [shared / "parity/commavq_gpt" / name for name in ("weights.pt", "config.json")]


@pytest.fixture
def vam(shared):
    return [shared / "parity/vam_mupgpt2" / n for n in ("weights.pt", "mup_base_shapes.bsh")]


@pytest.fixture
def cosmos(shared):
    return [shared / "parity/cosmos_ar" / name for name in ("weights_b.safetensors", "config.json")]


@pytest.fixture
def altered(tmp_path):
    """`altered(file, change)`: a copy whose tensors were changed."""

    def make(file: Path, change) -> Path:
        out = tmp_path / file.name
        if file.suffix == ".safetensors":
            state = load_file(file)
            change(state)
            save_file(state, out)
        else:
            values = torch.load(file)
            change(values)
            torch.save(values, out)
        return out

    return make


@pytest.fixture
def genie(shared, tmp_path):
    folder = shared / "parity/genie_stmaskgit"
    said = json.loads((folder / "config.json").read_text())["variants"]["a"]
    (tmp_path / "config.json").write_text(json.dumps(said["model"]))
    return [folder / said["weights"], tmp_path / "config.json"]


@pytest.fixture
def comma_grid(shared):
    """(rows, columns) of as many tokens as a frame of the fixture has."""
    space = parity(shared, "commavq_gpt")[1]["model"]["tokens_per_frame"] - 1
    rows = next(n for n in range(math.isqrt(space), 0, -1) if not space % n)
    return [rows, space // rows]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_converted_checkpoint_is_the_published_model(name, comma, cosmos, vam, genie, tmp_path):
    named = {"commavq_gpt": comma, "cosmos_ar": cosmos, "vam_mupgpt2": vam, "genie": genie}
    files = named[name]
    left_out = convert(name, files, tmp_path / "out")
    ours, theirs = load_world_model(tmp_path / "out"), open_published(name, files)
    assert ours.network.config == theirs.network.config
    assert ours.spec == theirs.spec
    for key, tensor in theirs.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[key], tensor), key
    published = ours.manifest["published"]
    assert published["name"] == name
    assert published["left_out"] == left_out
    assert set(published["files"]) == {file.name for file in files}
    with pytest.raises(BadInput, match="exists already"):
        convert(name, files, tmp_path / "out")


def test_the_command_writes_a_checkpoint_and_says_what_it_is(
    comma, comma_grid, shared, tmp_path, monkeypatch, capsys
):
    said = parity(shared, "commavq_gpt")[1]["model"]
    setting = f"ckpt={','.join(map(str, comma))}"
    rows, columns = comma_grid
    options = [f"options.grid=[{rows},{columns}]", f"out={tmp_path}/out"]
    monkeypatch.setattr(sys, "argv", ["convert", "model=commavq_gpt", setting, *options])
    command.main()
    shown = capsys.readouterr().out
    steps = said["block_size"] // said["tokens_per_frame"]
    assert f"{steps} steps of {rows}x{columns} tokens of {said['vocab_size'] - 1}" in shown
    assert f"{said['n_layer']} tensors of transformer.h.N.attn.masked_bias" in shown
    assert load_world_model(tmp_path / "out").spec.grid == (1, rows, columns)


def test_another_shape_of_the_family_opens(comma, tmp_path):
    """Two layers, three heads, 6 tokens a frame: nothing is that of the fixture."""
    config = open_published("commavq_gpt", comma).network.config
    config = replace(config, dim=12, num_layers=2, num_heads=3, mlp_hidden=20, context_steps=3)
    spec = replace(open_published("commavq_gpt", comma).spec, grid=(1, 2, 3), vocab_size=9)
    torch.manual_seed(0)
    network = GPT(config, spec, 0).eval()
    ours, state = network.state_dict(), {}
    for key, name in commavq_names(2).items():
        state[name] = ours[key].T.contiguous() if name.endswith(TRANSPOSED) else ours[key]
    state["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 3}))
    opened = open_published("commavq_gpt", [tmp_path / "pytorch_model.bin"], grid=[2, 3])
    assert opened.network.config == config
    tokens = torch.randint(0, 9, (1, 3, 2, 3))
    torch.testing.assert_close(opened.network(tokens), network(tokens))


def test_cosmos_as_it_is_published(cosmos, tmp_path):
    """Under "model", with "model." before every name, and TransformerEngine's extra state."""
    plain = load_file(cosmos[0])
    state = {f"model.{key}": tensor for key, tensor in plain.items()}
    state["model.layers.0.attention._extra_state"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "model.pt")
    said = json.loads(cosmos[1].read_text())["variants"]["b"]["model"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    opened = open_published("cosmos_ar", [tmp_path / "model.pt"]).network
    expected = open_published("cosmos_ar", cosmos).network
    assert opened.config == expected.config
    assert all(
        torch.equal(a, b) for a, b in zip(opened.parameters(), expected.parameters(), strict=True)
    )


def test_cosmos_without_a_config_is_the_published_one(cosmos, shared, tmp_path):
    """5 x 40 x 64 tokens; a text brings sinusoids; heads wider than dim / heads bring YaRN."""
    (tmp_path / "weights.safetensors").write_bytes(cosmos[0].read_bytes())
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr("worldmodel.published.cosmos_ar.fitted", lambda config, spec, *_: config)
        config = CosmosAR().open([tmp_path / "weights.safetensors"])
    assert (config.context_steps, config.sinusoid) == (5, True)
    assert (config.yarn_scale, config.yarn_original) == (2.0, (3, 40))
    assert config.rope_theta == 500_000
    shape = parity(shared, "cosmos_ar", "b")[1]["model"]["video_latent_shape"]
    opened = open_published(
        "cosmos_ar", [tmp_path / "weights.safetensors"], latent_shape=shape, fps=12.0
    )
    assert (opened.spec.grid, opened.spec.fps) == ((1, *shape[1:]), 12.0)


def test_weights_that_do_not_fit_are_refused(comma, cosmos, altered, shared):
    def refused(name, files, message):
        with pytest.raises(BadInput, match=message):
            open_published(name, files)

    def lack(key):
        return lambda state: state.pop(key)

    def add(state):
        state["transformer.h.0.extra.weight"] = torch.zeros(2)

    refused("commavq_gpt", [altered(comma[0], lack("lm_head.weight")), comma[1]], "lm_head.weight")
    refused("commavq_gpt", [altered(comma[0], add), comma[1]], r"h\.0\.extra\.weight")
    key = "transformer.wpe.weight"
    refused("commavq_gpt", [altered(comma[0], lack(key)), comma[1]], key)
    gone = "layers.1.attention.wk.weight"
    refused("cosmos_ar", [altered(cosmos[0], lack(gone)), cosmos[1]], "wqkv|wk.weight")
    middle = [k for k in load_file(cosmos[0]) if k.startswith("layers.1.")]

    def gap(state):
        for name in middle:
            del state[name]

    left = [n for n in range(parity(shared, "cosmos_ar", "b")[1]["model"]["n_layers"]) if n != 1]
    refused("cosmos_ar", [altered(cosmos[0], gap), cosmos[1]], re.escape(str(left)))
    refused("cosmos_ar", [comma[0], cosmos[1]], "layers.0.attention.wq.weight")


def test_what_the_files_do_not_say_must_be_given(comma, comma_grid, vam, altered, shared, tmp_path):
    heads = parity(shared, "commavq_gpt")[1]["model"]["n_head"]
    base = parity(shared, "vam_mupgpt2")[1]["mup_base_embedding_dim"]
    alone = altered(comma[0], lambda state: None)
    with pytest.raises(BadInput, match="num_heads=N"):
        open_published("commavq_gpt", [alone])
    opened = open_published("commavq_gpt", [alone], num_heads=heads, grid=comma_grid)
    assert opened.spec.grid == (1, *comma_grid)
    with pytest.raises(BadInput, match="whole frames of 129"):
        open_published("commavq_gpt", [alone], num_heads=heads)
    scaled = altered(vam[0], lambda values: None)
    with pytest.raises(BadInput, match="mup_base_width=N"):
        open_published("vam_mupgpt2", [scaled])
    narrow, given = (
        open_published("vam_mupgpt2", [scaled], mup_base_width=base),
        open_published("vam_mupgpt2", [scaled, vam[1]]),
    )
    assert narrow.network.config == given.network.config
    untold = altered(vam[0], lambda values: values.pop("hyper_parameters"))
    with pytest.raises(BadInput, match="dim_heads"):
        open_published("vam_mupgpt2", [untold, vam[1]])


def test_a_head_that_is_said_to_be_tied_must_be(vam, altered):
    def untie(values):
        embedding = values["state_dict"]["network.transformer.wie.weight"]
        values["state_dict"]["network.lm_head.weight"] = torch.zeros_like(embedding)

    with pytest.raises(BadInput, match=r"lm_head\.weight is not"):
        open_published("vam_mupgpt2", [altered(vam[0], untie), vam[1]])

    def own(values):
        untie(values)
        values["hyper_parameters"]["network"]["output_tied"] = False

    network = open_published("vam_mupgpt2", [altered(vam[0], own), vam[1]]).network
    assert not network.head.weight.any()


def test_names_and_options_that_are_not_there_are_refused(comma, shared):
    with pytest.raises(BadInput, match="there are: commavq_gpt"):
        open_published("gpt5", comma)
    with pytest.raises(BadInput, match="it has: num_heads, grid"):
        open_published("commavq_gpt", comma, fps=3.0)
    with pytest.raises(BadInput, match="2 files of weights"):
        open_published("commavq_gpt", [comma[0], comma[0]])
    wide = parity(shared, "commavq_gpt")[1]["model"]["block_size"]
    with pytest.raises(BadInput, match=f"whole frames of {wide + 1}"):
        open_published("commavq_gpt", comma, grid=[1, wide])
