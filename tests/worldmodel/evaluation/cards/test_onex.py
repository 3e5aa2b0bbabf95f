"""The card `onex`: 1X's table from its own files, on its own models."""

import importlib
import json
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from published_files import genie_files, parity

from drives.importers.tokens.onex_v1 import import_onex_v1
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from tokenizer.load import Tokenizer
from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.kinds import build_network
from tokenizer.quantizers.config import LFQConfig
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.evaluation.cards import onex
from worldmodel.evaluation.cards.config import OnexCard
from worldmodel.evaluation.challenges.spaced_windows import SpacedWindows
from worldmodel.evaluation.evidence import Evidence, evidence_of
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.evaluation.subject import JudgedModel
from worldmodel.load import WorldModel, load_world_model
from worldmodel.published import convert, open_published

SHORT = OnexCard(version="short", frames=4, num_windows=8)


def subject_of(model: WorldModel, store: TokenStore, tokenizer=None, batch_size=4) -> JudgedModel:
    evidence = Evidence(store, tokenizer=tokenizer)
    return JudgedModel(model, evidence, "val", "cpu", Sampling(), {}, batch_size)


def asked(subject: JudgedModel, card: OnexCard):
    onex.check(subject, card)
    return onex.measure(subject, card)


@pytest.fixture
def genie(shared, tmp_path):
    (tmp_path / "genie").mkdir()
    return open_published("genie", genie_files(shared, tmp_path / "genie"))


@pytest.fixture
def store(shared, tmp_path):
    return import_onex_v1(shared / "parity/onex_data/val_v1.1", tmp_path / "store")


def test_the_command_prints_the_row(shared, tmp_path, monkeypatch, capsys):
    convert("genie", genie_files(shared, tmp_path), tmp_path / "genie")
    given = (
        *(f"ckpt={tmp_path}/genie", "card=onex", "split=val", f"out={tmp_path}/eval"),
        f"data.root={shared}/parity/onex_data/val_v1.1",
        *("cards.onex.version=short", "cards.onex.frames=4", "cards.onex.num_windows=8"),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASHCAST_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["eval.py", *given])
    importlib.import_module("eval").main()
    said = capsys.readouterr().out
    assert "token steps per second" not in said  # the card takes every 15th frame
    evidence_of(load_world_model(tmp_path / "genie"), {"root": given[4].split("=")[1]}, None)
    assert "has 30 token steps per second" in capsys.readouterr().out  # where nothing does
    card = json.loads((tmp_path / "eval/metrics.json").read_text())["cards"]["onex"]
    nats = card["scores"]["world model"]["nats_per_token"]["value"]
    assert f"| genie | {nats:.2f} | 0.0000 | - | {card['seconds_per_frame']:.3f} |" in said
    assert card["clips"]["num"] == len(card["clips"]["ids"]) == 8
    assert card["scores"]["uniform"]["nats_per_token"]["value"] == pytest.approx(12.476649)
    assert card["no_pixels"].startswith("give tokenizer=FOLDER")
    values = json.loads((tmp_path / "eval/clips.json").read_text())["onex"]["values"]
    assert np.mean(values["world model"]["nats_per_token"]) == pytest.approx(nats)


def test_lpips_is_that_of_decoded_tokens(genie, store):
    torch.manual_seed(0)
    config = VQGANConfig(
        *((64, 64), LFQConfig(18, bit_order="little"), "magvit2"), 32, (1, 1, 1, 1, 1), 1
    )
    tokenizer = Tokenizer(build_network(config), "hash", {"published": {"name": "magvit2"}})
    card = OnexCard(version="short", frames=4, num_windows=3)
    found = asked(subject_of(genie, store, tokenizer, 2), card)
    assert len(found.names) == 3
    assert found.names[0] == "val_v1.1-000000@0"
    model, copy = (found.systems[name] for name in ("world model", "copy last frame"))
    assert model["lpips"].value > 0
    assert copy["lpips"].value > 0
    assert {"psnr", "ssim"} <= set(model)
    assert len(found.curves["world model"]["lpips"]) == 3
    again = asked(subject_of(genie, store, tokenizer, 3), card)
    assert again.values["world model"]["lpips"] == pytest.approx(
        found.values["world model"]["lpips"], abs=1e-5
    )
    assert f"| {model['lpips'].value:.3f} |" in found.details["lines"][1]
    tokenizer.network.quantizer.bit_order = "big"
    with pytest.raises(BadInput, match=r"reads the bits of a token as 'big'.*bit_order=little"):
        onex.check(subject_of(genie, store, tokenizer), card)


def test_floors_are_fitted_at_the_rate_of_the_windows(genie, shared, tmp_path):
    root = tmp_path / "sets"
    root.mkdir()
    for split in ("train", "val"):
        shutil.copytree(shared / "parity/onex_data/val_v1.1", root / f"{split}_v1.1")
    store = import_onex_v1(root, tmp_path / "both")
    found = asked(subject_of(genie, store), OnexCard(version="x", frames=4, sample=False))
    names = {"unigram", "position", "copy_last_frame", "previous_token"}
    assert names | {"uniform", "copy last frame"} == set(found.floors)
    windows = SpacedWindows(store.drives("val"), 4, 15, disjoint=True)
    tokens = np.stack([windows[i][0] for i in range(len(windows))])
    thinned = [replace(d, tokens=d.tokens[::15]) for d in store.drives("train")]
    for name, nats in floors(thinned, tokens, 2**18).items():
        assert found.values[name]["nats_per_token"] == pytest.approx(nats.mean(1))


def test_the_loss_alone_samples_and_decodes_nothing(genie, store, monkeypatch):
    monkeypatch.setattr(onex, "judge_windows", None)
    monkeypatch.setattr(onex, "decode_grids", None)
    alone = asked(
        subject_of(genie, store), OnexCard(version="loss", frames=4, num_windows=8, sample=False)
    )
    monkeypatch.undo()
    whole = asked(subject_of(genie, store), SHORT)
    assert (
        alone.values["world model"]["nats_per_token"]
        == (whole.values["world model"]["nats_per_token"])
    )
    assert "accuracy" not in alone.systems["world model"]
    assert alone.details["lines"][1].endswith("| - | - | - |")


def test_other_regimes_rates_and_contexts_are_refused(genie, store, tmp_path):
    with pytest.raises(BadInput, match=r"cards\.onex\.frames=16: the model reads 4 frames"):
        onex.check(subject_of(genie, store), OnexCard())
    with pytest.raises(BadInput, match=r"cards\.onex\.every=3: makes 10 frames.*give .*every=15"):
        onex.check(subject_of(genie, store), OnexCard(version="x", frames=4, every=3))
    gpt = GPTConfig(
        8,
        1,
        1,
        context_steps=4,
        layout=LayoutConfig("none"),
        factors=(512, 512),
        look_back=0,
        tie_embeddings=False,
    )
    network = build_dynamics(gpt, genie.spec, 0)
    model = WorldModel(network, genie.spec, (), tmp_path, {"published": {}})
    with pytest.raises(BadInput, match="a GPT predicts a token from real tokens of the same"):
        onex.check(subject_of(model, store), SHORT)


def clip_store(root, grid=(3, 2, 4), vocab=80, splits=("val", "val")) -> TokenStore:
    spec = TokenSpec(grid, vocab, 30.0, 17, (16, 32), "cosmos_dv")
    writer = TokenStoreWriter(root, spec, ())
    for number, split in enumerate(splits):
        tokens = np.random.default_rng(number).integers(0, vocab, (5, *grid))
        writer.write(f"shard-{number}", split, tokens, np.zeros((5, 0), np.float32))
    return TokenStore(root)


def test_clips_of_which_nine_frames_are_given(shared, tmp_path):
    folder, said = parity(shared, "cosmos_ar", "a")
    (tmp_path / "config.json").write_text(json.dumps(said["model"]))
    files = [folder / said["weights"], tmp_path / "config.json"]
    model = open_published("cosmos_ar", files)
    store = clip_store(tmp_path / "store", splits=("val", "train"))
    model.check_store(store)
    found = asked(subject_of(model, store), OnexCard(version="few", num_windows=4, top=20))
    assert len(found.names) == 4
    scores = found.systems["world model"]
    assert {"unigram", "position", "copy_last_frame", "previous_token"} < set(found.floors)
    tokens = torch.from_numpy(np.stack([store.drives("val")[0].tokens[0]]).astype(np.int64))
    nats = model.network.score(tokens).nats[0, 2].mean().item()
    assert found.values["world model"]["nats_per_token"][0] == pytest.approx(nats, abs=1e-5)
    assert scores["top_20_nats"].value > 0
    assert 0 < scores["in_top_20"].value < 1
    assert 0 <= scores["accuracy"].value < 0.5
    assert "9 frames are given" in found.details["regime"]
    assert found.details["rate"] == pytest.approx(
        math.log(80) / scores["nats_per_token"].value, rel=1e-6
    )


def test_clips_after_clips(tmp_path):
    """The second challenge: three grids, all masked, from the clip before."""
    store = clip_store(tmp_path / "store")
    config = MaskedConfig(
        16, 1, 2, context_steps=2, num_prompt_frames=1, factors=(8, 10), look_back=0
    )
    torch.manual_seed(0)
    network = build_dynamics(config, store.spec, 0).eval()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    model = WorldModel(network, store.spec, (), tmp_path, {"published": {}})
    found = asked(subject_of(model, store), OnexCard(version="few", top=20))
    assert len(found.names) == 8
    scores = found.systems["world model"]
    assert scores["nats_per_token"].value == pytest.approx(math.log(80), abs=1e-5)
    # 20 of 80 equally likely tokens are listed; the others share what these leave.
    assert scores["top_20_nats"].value == pytest.approx(math.log(80), abs=1e-4)
    assert "the whole clip masked" in found.details["regime"]
    assert "accuracy" not in scores
