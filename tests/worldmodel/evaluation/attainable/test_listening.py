"""Listening: the best model has 100 %, one that ignores actions 0 %."""

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_models import KnownModel

from drives.tokens.store import TokenDrive, TokenStore
from training.errors import BadInput
from training.loading.loader import listed_loader
from worldmodel.data import TokenWindows, collate
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.listening import (
    Hearable,
    listening,
    open_attainable,
    typical,
    used_bits,
)
from worldmodel.evaluation.attainable.mixture import Centres, centres_of, filtered
from worldmodel.evaluation.attainable.probe import train_probe
from worldmodel.evaluation.attainable.windows import HorizonWindows, statistics
from worldmodel.evaluation.intervals import Estimate
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld

WORLD = KnownEntropyWorld()
PROBE = ProbeConfig(context=3)


def sampled(world: KnownEntropyWorld, split: str, num: int, steps: int) -> list[TokenDrive]:
    found = []
    for number in range(num):
        tokens, actions = world.sample(steps, [split == "test", number])
        found.append(TokenDrive(f"{split}{number}", split, tokens, actions))
    return found


def hearable_of(world: KnownEntropyWorld, drives: list[TokenDrive]) -> Hearable:
    """As theory says: H0 - H1 of every frame."""
    cells = world.spec.tokens_per_step
    bits = cells * (world.entropy(with_actions=False) - world.entropy()) / math.log(2)
    by_drive = {drive.id: (bits, 10) for drive in drives}
    return Hearable(Estimate(bits, bits, bits, 10, len(drives)), by_drive, PROBE)


class NeverDropped(KnownModel):
    """What it says of dropped actions is worthless, as without action dropout."""

    def score(self, tokens, actions=None, drop_actions=None, captions=None):
        if drop_actions is not None and drop_actions.all():
            return KnownModel("uniform", self.world).score(tokens, actions)
        return super().score(tokens, actions, drop_actions, captions)


@pytest.mark.parametrize(
    ("kind", "model", "without", "expected"),
    [
        ("oracle", KnownModel, "dropped", 1.0),
        ("oracle", NeverDropped, "mixture", 1.0),
        ("deaf", NeverDropped, "mixture", 0.0),
        ("uniform", KnownModel, "dropped", 0.0),
    ],
)
def test_it_is_all_of_an_oracle_and_nothing_of_the_deaf(kind, model, without, expected) -> None:
    train, test = (sampled(WORLD, split, 4, 600) for split in ("train", "test"))
    windows = TokenWindows(test, 6, stride=6)
    clips = list(listed_loader(windows, range(len(windows)), 50, collate))
    used, stands = used_bits(model(kind, WORLD), clips, train, PROBE, "cpu")
    drives = [windows.describe(i)["drive"] for i in range(len(windows))]
    share = listening(used, drives, hearable_of(WORLD, test))
    assert share.value == pytest.approx(expected, abs=0.03 if expected else 1e-9)
    assert share.low - 0.02 <= expected <= share.high + 0.02
    # Numbers that are equal may be told under either name.
    assert stands == without or kind == "uniform"


def test_the_past_tells_of_the_action_as_in_a_hidden_markov_model() -> None:
    rng = torch.Generator().manual_seed(0)
    nats = 3 * torch.rand(3, 1, 4, generator=rng, dtype=torch.float64)
    moves = torch.softmax(torch.randn(3, 3, generator=rng, dtype=torch.float64), 1)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    told = filtered(nats, Centres(torch.zeros(3, 1), shares, moves))
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        prob = shares[path[0]] * math.prod(moves[a, b] for a, b in itertools.pairwise(path))
        total += prob * torch.exp(-sum(nats[k, 0, t] for t, k in enumerate(path)))
    assert told.sum().item() == pytest.approx(-math.log(total))


def test_typical_actions_come_as_often_as_in_the_drives_and_stay_in_their_units() -> None:
    actions = np.repeat([[10.0, 0.0], [10.0, 0.5], [30.0, 0.0]], [60, 20, 20], 0)
    drive = TokenDrive("d", "train", np.zeros((100, 1, 1), np.uint16), actions.astype(np.float32))
    centres = typical([drive], PROBE)
    torch.testing.assert_close(centres.rows, torch.tensor([[10.0, 0.0], [10, 0.5], [30, 0]]))
    torch.testing.assert_close(centres.shares, torch.tensor([59, 20, 20.0]).double() / 99)
    assert (centres.moves.diag() > 0.9).all()  # each is held for long
    torch.testing.assert_close(centres.moves.sum(1), torch.ones(3).double())
    many = np.random.default_rng(0).normal(size=(500, 2))
    assert len(centres_of(many[:-1], many[1:], 8, 0).rows) <= 8


def test_an_interval_is_over_the_drives_of_both() -> None:
    used = np.array([1.0, 1, 3, 3])
    drives = ["a", "a", "b", "b"]
    there = Hearable(Estimate(4.0, 2, 6, 4, 2), {"a": (2.0, 2), "b": (6.0, 2)}, PROBE)
    share = listening(used, drives, there)  # half of each, and so in every resampling
    assert (share.value, share.low, share.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = listening(used[:2], drives[:2], replace(there, by_drive={"a": (2.0, 2)}))
    assert (alone.value, alone.low) == (0.5, None)
    nothing = listening(used, drives, replace(there, by_drive={"a": (0.0, 2)}))
    assert nothing.value is None


def test_a_file_of_other_tokens_is_refused(tmp_path: Path) -> None:
    WORLD.write_store(tmp_path / "store", 1, 1, steps=30, seed=0)
    store, file = TokenStore(tmp_path / "store"), tmp_path / "attainable.json"
    bits = asdict(Estimate(2.0, 1.0, 3.0, 5, 1))
    answers = [
        {"horizon": 2, "lag": 0, "bits_per_frame": bits, "by_drive": {}},
        {"horizon": 1, "lag": 0, "bits_per_frame": bits, "by_drive": {"d": [2.0, 5]}},
    ]
    whole = {"store": store.hash, "probe": asdict(PROBE), "answers": answers}
    file.write_text(json.dumps(whole))
    found = open_attainable(file, store)
    assert (found.bits.value, found.by_drive) == (2.0, {"d": (2.0, 5)})
    assert (found.probe.context, found.probe.centres) == (PROBE.context, PROBE.centres)
    assert found.is_something
    for wrong, says in (
        ({"store": "0123456789abcdef"}, rf"tokens 0123456789ab, and .*holds {store.hash[:12]}"),
        ({"answers": answers[:1]}, "says nothing of horizon 1; run"),
        ({"answers": [{**answers[1], "by_drive": 3}]}, "by_drive"),
        ({"probe": {"steps": -1}}, "steps"),
    ):
        file.write_text(json.dumps({**whole, **wrong}))
        with pytest.raises(BadInput, match=says) as caught:
            open_attainable(file, store)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    file.write_text("[]")
    with pytest.raises(BadInput, match=r"is no attainable\.json"):
        open_attainable(file, store)


@pytest.mark.slow
def test_a_trained_model_listens_and_one_fed_shuffled_actions_does_not() -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3)))
    train, test = sampled(world, "train", 32, 1000), sampled(world, "test", 8, 1000)
    config = ProbeConfig(
        context=3, steps=1000, batch_size=32, dim=48, look_back=3, learning_rate=4e-3
    )
    rng = np.random.default_rng(0)
    wrong = [TokenDrive(d.id, d.split, d.tokens, rng.permutation(d.actions)) for d in train]
    heard = []
    for drives in (train, wrong):
        # Units of 1: the model reads rows as they are recorded.
        units = (np.zeros(1), np.ones(1))
        windows = HorizonWindows(drives, 3, 1, 0, *units)
        select = HorizonWindows(test, 3, 1, 0, *units)
        chosen = (select, select.spread(200))
        model = train_probe(windows, chosen, world.spec, config, 0, True, "cpu")
        judged = TokenWindows(test, 3, stride=3)
        clips = list(listed_loader(judged, range(len(judged)), 200, collate))
        used, _ = used_bits(model, clips, train, config, "cpu")
        names = [judged.describe(i)["drive"] for i in range(len(judged))]
        heard.append(listening(used, names, hearable_of(world, test)).value)
    assert 0.98 <= heard[0] <= 1.02
    assert heard[1] == pytest.approx(0, abs=0.02)
    assert statistics(train)[1] == pytest.approx(0.77, abs=0.02)
