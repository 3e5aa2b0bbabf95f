"""The card `commavq`: windows of real tokens, from the published files."""

import importlib
import json
import math
import sys

import numpy as np
import pytest
from published_files import gpt2m_files

from drives.importers.tokens.commavq import import_commavq
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.evaluation.cards import commavq
from worldmodel.evaluation.cards.commavq import _floors as floors_of
from worldmodel.evaluation.cards.commavq import rate_of
from worldmodel.evaluation.cards.config import CommaVQCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.challenges.commavq import commavq_windows
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.intervals import Estimate
from worldmodel.evaluation.subject import Chosen, JudgedModel
from worldmodel.published import convert, open_published

NAMES = ("unigram", "position", "copy_last_frame", "previous_token")


def test_a_segment_by_the_command(shared, tmp_path, monkeypatch, capsys):
    convert("commavq_gpt", gpt2m_files(tmp_path), tmp_path / "gpt2m")
    given = (
        *(f"ckpt={tmp_path}/gpt2m", "card=commavq", f"out={tmp_path}/eval", "data=commavq"),
        f"data.root={shared}/data/commavq",
        *("data.source.num_train=0", "data.source.num_test=301"),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASHCAST_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["eval.py", *given])
    importlib.import_module("eval").main()
    card = json.loads((tmp_path / "eval/metrics.json").read_text())["cards"]["commavq"]
    assert card["clips"]["num"] == 15
    assert list(card["windows_by_segment"].values()) == [15]
    scores = {k: v["value"] for k, v in card["scores"]["world model"].items()}
    values = json.loads((tmp_path / "eval/clips.json").read_text())["commavq"]["values"]
    for name in ("nats_with_separators", "nats_without_separators"):
        assert len(values["world model"][name]) == 15
        assert np.mean(values["world model"][name]) == pytest.approx(scores[name])
    # An untrained model costs what a guess among 1025 ids does.
    assert scores["nats_with_separators"] == pytest.approx(math.log(1025), abs=0.1)
    assert scores["rate_without_separators"] == pytest.approx(
        10 / scores["bits_per_token_without_separators"]
    )
    bits = scores["nats_with_separators"] * 129 / 128 / math.log(2)
    assert scores["bits_per_token_with_separators"] == pytest.approx(bits)
    assert card["scores"]["uniform"]["rate_without_separators"]["value"] == pytest.approx(1)
    assert "commavq (version 1" in capsys.readouterr().out


def test_segments_count_alike_and_a_rate_has_the_interval_of_its_bits(shared, tmp_path):
    model = open_published("commavq_gpt", gpt2m_files(tmp_path))
    for name, frames in (("a", 41), ("b", 61), ("c", 21)):
        folder = tmp_path / "segments"
        folder.mkdir(exist_ok=True)
        tokens = np.load(shared / "data/commavq/tokens.npy")[:frames] * (name != "a")
        np.save(folder / f"{name}.token.npy", tokens.astype(np.int16))
    store = import_commavq(folder, tmp_path / "store")
    subject = JudgedModel(model, Evidence(store), "test", "cpu", Sampling(), {})
    subject.held = [store.find(name) for name in "abc"]
    card = CommaVQCard()
    commavq.check(subject, card)
    found = commavq.measure(subject, card)
    assert found.names == ["a@0", "a@20", "b@0", "b@20", "b@40", "c@0"]
    values = np.array(found.values["world model"]["nats_with_separators"])
    by_segment = [values[:2].mean(), values[2:5].mean(), values[5]]
    assert found.systems["world model"]["nats_with_separators"].value == pytest.approx(
        np.mean(by_segment)
    )
    assert rate_of(Estimate(5.0, 4.0, 8.0, 3, 2), 10) == Estimate(2.0, 1.25, 2.5, 3, 2)
    assert len(commavq.measure(subject, CommaVQCard(version="x", num_segments=2)).names) == 3
    with pytest.raises(BadInput, match=r"cards\.commavq\.frames=21: the model reads 20 frames"):
        commavq.check(subject, CommaVQCard(version="long", frames=21))


def test_floors_score_the_frames_of_the_model(shared, tmp_path):
    """Frames 0 to 19 of every window: the frame that is there for its BOS alone changes nothing."""
    model = open_published("commavq_gpt", gpt2m_files(tmp_path))
    tokens = np.load(shared / "data/commavq/tokens.npy")[:101].astype(np.int16)
    found = []
    for last in (tokens[100], (tokens[100] + 1) % 1024, tokens[100]):
        folder = tmp_path / f"minute-{len(found)}"
        folder.mkdir()
        changed = tokens.copy()
        changed[100] = last
        if len(found) == 2:
            changed[80] = (changed[80] + 512) % 1024
        np.save(folder / "tokens.npy", changed)
        store = import_commavq(folder, tmp_path / f"store-{len(found)}", 80, 21)
        subject = JudgedModel(model, Evidence(store), "test", "cpu", Sampling(), {})
        result = Result(drives=["a"], names=["a@0"])
        windows = commavq_windows(subject.held)
        floors_of(subject, Chosen(windows, [0]), result, 10.0)
        found.append(
            {name: result.systems[name]["nats_without_separators"].value for name in NAMES}
        )
    assert found[0] == found[1]
    assert all(found[0][name] != found[2][name] for name in NAMES)
