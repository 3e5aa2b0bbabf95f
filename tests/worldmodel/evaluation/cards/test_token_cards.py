"""The cards `floors`, `drift` and `control` where there are tokens alone: nothing is decoded."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from drives.tokens.store import TokenStore
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.evaluation.cards import control, kinds
from worldmodel.evaluation.cards.config import ControlCard, DriftCard, FloorsCard
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.subject import JudgedModel
from worldmodel.known_entropy.world import ACTION_NAMES, KnownEntropyWorld
from worldmodel.load import WorldModel


@pytest.fixture
def subject(tmp_path):
    """`subject(kind of actions)`: an untrained model of the known-entropy world."""
    world = KnownEntropyWorld()
    world.write_store(tmp_path / "store", num_train=2, num_test=3, steps=60, seed=0)
    store = TokenStore(tmp_path / "store")

    def make(actions="continuous"):
        torch.manual_seed(0)
        layout = LayoutConfig(actions)
        config = GPTConfig(
            dim=24, num_layers=1, num_heads=2, context_steps=4, layout=layout, tie_embeddings=False
        )
        network = build_dynamics(config, world.spec, 1).eval()
        model = WorldModel(network, world.spec, ACTION_NAMES, Path("model"), {})
        return JudgedModel(model, Evidence(store), "test", "cpu", Sampling(), {})

    return make


def asked(subject, card):
    kinds.check(subject, card, asked=True)
    found = kinds.measure(subject, card)
    return found, json.loads(to_json(finite(found.plain())))


def test_floors_have_intervals_over_the_windows_of_the_model(subject):
    found, plain = asked(subject(), FloorsCard(version="x", num_windows=12))
    assert plain["num_leaks"] == 0
    for system in ("unigram", "position", "previous_token", "copy_last_frame", NEAREST):
        score = plain["scores"][system]["bits_per_token"]
        assert (score["num_clips"], score["num_drives"]) == (12, 3)
        assert score["low"] <= score["value"] <= score["high"]
        assert np.mean(found.values[system]["bits_per_token"]) == pytest.approx(score["value"])
    assert plain["scores"]["uniform"]["bits_per_token"]["value"] == pytest.approx(3)
    equal = plain["scores"][NEAREST]["equal_cells"]["value"]
    assert 1 / 8 < equal < 0.8
    assert plain["lines"] == [
        "0 of 12 windows hold a frame that equals one of the train drives in 98% of its cells "
        "or more"
    ]


NEAREST = "nearest_neighbour"


def test_drift_of_tokens(subject):
    _, plain = asked(subject(), DriftCard(version="x", num_clips=3, horizon_s=2.0))
    bits = plain["curves"]
    assert len(bits["own samples"]["bits_per_token"]["value"]) == plain["num_frames"] == 20
    assert len(bits["recording"]["bits_per_token"]["value"]) == 20
    assert "tokens only" in plain["no_pixels"]
    for part in ("histogram_by_second", "histogram_of_real_by_second"):
        assert len(plain[part]) == 2
        assert all(0 <= second["value"] <= 1 for second in plain[part])


def test_a_model_whose_weights_for_actions_are_zero_pays_nothing_to_the_last_digit(subject):
    card = ControlCard(version="x", num_windows=9)
    listens = subject()
    deaf = subject()
    names = [n for n, _ in deaf.network.named_parameters() if "action" in n]
    assert names
    for name, parameter in deaf.network.named_parameters():
        if name in names:
            parameter.data.zero_()
    for one, ignores in ((listens, False), (deaf, True)):
        _, plain = asked(one, card)
        costs = {k: v["cost_bits_per_frame"] for k, v in plain["scores"].items()}
        assert set(costs) > {"true actions", "shuffled actions", "lag -2 actions", "lag +1 actions"}
        assert (costs["shuffled actions"]["value"] == 0) is ignores
        assert (costs["shuffled actions"]["low"] == costs["shuffled actions"]["high"]) is ignores
        assert "inverse_dynamics" not in plain
        true = plain["scores"]["true actions"]
        assert true["bits_per_frame"]["value"] == pytest.approx(
            16 * true["bits_per_token"]["value"]
        )
        assert math.isfinite(plain["cost_by_lag"]["-2"])


def test_control_tells_the_share_of_what_there_is_to_hear(subject, tmp_path):
    card = ControlCard(version="x", num_windows=9)
    judged = subject()
    _, plain = asked(judged, card)
    how = "give attainable=FILE, which `python -m worldmodel.evaluation.attainable` writes"
    assert plain["listening"]["skipped"].startswith(how)
    assert how in plain["lines"][0]
    bits = {"value": 4.0, "low": 3.0, "high": 5.0, "num_clips": 9, "num_drives": 3}
    by_drive = {name: [4.0, 3] for name in {drive.id for drive in judged.held}}
    answer = {"horizon": 1, "lag": 0, "bits_per_frame": bits, "by_drive": by_drive}
    told = {"store": judged.evidence.store.hash, "probe": {"centres": 4}, "answers": [answer]}
    file = tmp_path / "attainable.json"
    file.write_text(json.dumps(told))
    judged = subject()
    judged.attainable = file
    _, plain = asked(judged, card)
    found = plain["listening"]
    share, used = found["share"], found["used_bits"]
    assert share["value"] == pytest.approx(used["value"] / 4)
    assert share["low"] < share["value"] < share["high"]
    assert abs(share["value"]) < 0.1  # an untrained model
    assert plain["lines"][0].startswith("listening ")
    assert "of 4 [3, 5] bits of a time step that actions can tell" in plain["lines"][0]
    file.write_text(json.dumps({**told, "store": "other"}))
    with pytest.raises(BadInput, match=r"attainable=.*was measured on tokens other"):
        kinds.check(judged, card, asked=False)


@pytest.mark.parametrize(("shuffled", "warned"), [(0.5, True), (-0.02, True), (8.0, False)])
def test_a_lag_is_warned_of_where_it_gains_much_of_what_wrong_actions_cost(
    subject, monkeypatch, shuffled, warned
):
    judged = subject()

    def bits(network, clips, device, texts, late=None):
        true = judged.scores(judged.windows(4, 9)).nats.mean(1).numpy() / math.log(2)
        if late is None:
            return {"shuffled": true + shuffled}
        return {name: true + 0.1 * (-1 if name == "lag +1" else 1) for name in late}

    monkeypatch.setattr(control, "bits_by_window", bits)
    _, plain = asked(judged, ControlCard(version="x", num_windows=9))
    lines = " ".join(plain.get("lines", ()))
    assert ("actions +1 rows later cost less than the true ones" in lines) is warned
