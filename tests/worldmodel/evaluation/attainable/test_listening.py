"""Listening: the best model has 100 %, one that ignores actions 0 %."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_models import KnownModel
from torch.nn.utils import clip_grad_norm_

from drives.tokens.store import TokenDrive, TokenSpec, TokenStore
from training.config import MuonConfig
from training.errors import BadInput
from training.loading.loader import listed_loader
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.listening import (
    Hearable,
    listening,
    open_attainable,
    typical,
    used_bits,
)
from worldmodel.evaluation.attainable.mixture import Centres, centres_of, mixture_nats
from worldmodel.evaluation.attainable.windows import statistics
from worldmodel.evaluation.intervals import Estimate
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.windows import TokenWindows, collate

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


def test_the_true_action_stands_for_the_typical_one_nearest_to_it() -> None:
    """So no action can spare more bits than its typical one takes to tell."""
    test = sampled(WORLD, "test", 2, 60)
    clips = [collate([TokenWindows(test, 4)[i] for i in range(50)])]
    moves = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    rows, shares = torch.tensor([[-1.2], [0.3], [1.1]]), torch.ones(3).double() / 3
    centres = Centres(rows, torch.ones(1), shares, moves)
    true, previous = (clips[0].actions[:, at, 0].long() + 1 for at in (2, 1))

    class Certain(KnownModel):
        """Knows the frame under its own action, and gives it no chance under any other."""

        def score(self, tokens, actions=None, drop_actions=None, captions=None):
            scores = super().score(tokens, actions)
            wrong = (actions != clips[0].actions).any(-1).any(-1)
            nats = 99 * wrong[:, None, None].double()
            return replace(scores, nats=nats.expand_as(scores.nats))

    nats = mixture_nats(Certain("oracle", WORLD), clips, centres, "cpu")
    torch.testing.assert_close(nats, -moves[previous, true].log())
    short = [collate([TokenWindows(test, 2)[0]])]
    clips[0] = short[0]
    nats = mixture_nats(Certain("oracle", WORLD), short, centres, "cpu")
    torch.testing.assert_close(nats, torch.full((1,), math.log(3)).double())


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


def trained(train: list[TokenDrive], spec: TokenSpec) -> Dynamics:
    config = WholeFrameConfig(
        context_steps=3,
        layout=LayoutConfig("continuous"),
        dim=48,
        num_layers=2,
        inner_layers=2,
        num_heads=3,
        look_back=3,
    )
    torch.manual_seed(0)
    model, windows = build_dynamics(config, spec, 1), TokenWindows(train, 3)
    settings = MuonConfig(lr=4e-3, muon_lr=1e-2, weight_decay=0.05, min_lr_ratio=0.02)
    optimizer, schedule = build_optimizer(model, settings, 1000)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        clip = collate([windows[i] for i in rng.integers(0, len(windows), 32).tolist()])
        optimizer.zero_grad()
        model.loss(clip.tokens, clip.actions).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_trained_model_listens_and_one_fed_shuffled_actions_does_not() -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3)))
    train, test = sampled(world, "train", 32, 1000), sampled(world, "test", 8, 1000)
    rng = np.random.default_rng(0)
    wrong = [TokenDrive(d.id, d.split, d.tokens, rng.permutation(d.actions)) for d in train]
    heard = []
    for drives in (train, wrong):
        model = trained(drives, world.spec)
        judged = TokenWindows(test, 3, stride=3)
        clips = list(listed_loader(judged, range(len(judged)), 200, collate))
        used, _ = used_bits(model, clips, train, PROBE, "cpu")
        names = [judged.describe(i)["drive"] for i in range(len(judged))]
        heard.append(listening(used, names, hearable_of(world, test)).value)
    assert 0.98 <= heard[0] <= 1.02
    assert heard[1] == pytest.approx(0, abs=0.02)
    assert statistics(train)[1] == pytest.approx(0.77, abs=0.02)
