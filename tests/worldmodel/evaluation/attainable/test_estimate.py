"""What actions can tell: on the known-entropy world it is H0 - H1."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drives.tokens.store import TokenStore
from training.errors import BadInput
from worldmodel.evaluation.attainable import estimate
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.estimate import Attainable, Probing, advice
from worldmodel.evaluation.attainable.probe import RowProbe
from worldmodel.evaluation.intervals import Estimate
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld

QUICK = ProbeConfig(
    horizons=(1, 2), lags=(0, 1), seeds=1, context=2, num_windows=40, steps=4, dim=8, checks=2
)


def store_of(root: Path, world: KnownEntropyWorld, num_train: int, num_test: int) -> TokenStore:
    world.write_store(root, num_train, num_test, steps=200, seed=0)
    return TokenStore(root)


def test_finished_probes_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path / "store", KnownEntropyWorld(), 2, 2)
    first = Probing(store, QUICK, tmp_path / "out", "cpu").estimates()
    assert [(a.horizon, a.lag) for a in first] == [(1, 0), (2, 0), (1, 1)]
    assert len(list((tmp_path / "out/probes").glob("*.npz"))) == 6  # 3 with the frame, 3 without
    again = Probing(TokenStore(tmp_path / "store"), QUICK, tmp_path / "elsewhere", "cpu")
    assert again.estimates() == first  # the same digits from nothing
    monkeypatch.setattr(estimate, "train_probe", None)  # not called
    assert Probing(store, QUICK, tmp_path / "out", "cpu").estimates() == first
    with pytest.raises(TypeError):  # other settings are other probes
        Probing(store, replace(QUICK, steps=5), tmp_path / "out", "cpu").estimates()


def test_data_without_actions_and_short_drives_are_refused(tmp_path: Path) -> None:
    world = KnownEntropyWorld()
    store = store_of(tmp_path / "store", world, 1, 1)
    far = replace(QUICK, horizons=(1, 190))
    with pytest.raises(BadInput, match="190 steps apart, are longer than every drive"):
        Probing(store, far, tmp_path / "out", "cpu").estimates()
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    assert manifest["action_names"]
    store.action_names = ()
    with pytest.raises(BadInput, match="has no actions"):
        Probing(store, QUICK, tmp_path / "out", "cpu")
    for wrong in ({"horizons": ()}, {"horizons": (1, 1)}, {"lags": (9,)}, {"context": 1}):
        with pytest.raises(BadInput, match=r"^probe\."):
            replace(QUICK, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"look_back": 4}, {"dropout": 2}, {"dim": 0}, {"centres": 1}, {"learning_rate": 0}],
    ids=str,
)
def test_a_probe_that_no_network_can_be_is_named_by_its_setting(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(BadInput, match=rf"^probe\.{name}=") as caught:
        replace(QUICK, **wrong)
    assert "\n" not in str(caught.value)


def answer(horizon: int, lag: int, bits: float, low: float | None = None) -> Attainable:
    told = Estimate(bits, bits - 0.1 if low is None else low, bits + 0.1, 10, 5)
    return Attainable(horizon, lag, told, told, told, (bits - 0.01, bits, bits + 0.01), {})


def test_it_says_what_to_change() -> None:
    found = [answer(1, 0, 0.5), answer(4, 0, 3.0), answer(1, 1, 0.51), answer(1, -1, 0.2)]
    lines = advice(found, 100, 10)
    assert lines[0] == "the actions tell 0.50 bits of a frame 0.1 s ahead (0.0050 per token)"
    assert lines[1].startswith("a stride of 4 steps lets them be heard: 3.00 bits per frame")
    assert len(lines) == 2  # a lag that tells 2 % more is no finding
    slower = advice(found, 100, 2.5)  # 4 frames of 10 per second in a time step
    assert "0.50 bits of a frame 0.4 s ahead" in slower[0]
    late = advice([answer(1, 0, 0.5), answer(1, 2, 0.8)], 100, 10)
    assert late[1].startswith("rows +2 steps away tell more (0.80 bits)")
    assert "interval holds 0" in advice([answer(1, 0, 0.02, low=-0.1)], 100, 10)[1]


def test_a_probe_is_shown_the_last_frame_or_not_and_starts_at_what_follows_what(
    tmp_path: Path,
) -> None:
    store = store_of(tmp_path / "store", KnownEntropyWorld(), 2, 2)
    probing = Probing(store, QUICK, tmp_path / "out", "cpu")
    windows, ids = probing._judged(1, 0)
    centres = probing._centres(windows)
    assert centres.nearest(windows.batch(ids).row).unique().tolist() == [0, 1, 2]
    asked = windows.batch(ids)
    usual = centres.moves.log().float()[centres.nearest(asked.before)]
    changed = asked.tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 5
    for sees_last in (False, True):
        torch.manual_seed(0)
        probe = RowProbe(store.spec, centres, QUICK, sees_last).eval()
        assert torch.equal(probe(asked, usual), usual)
        torch.nn.init.normal_(probe.head.weight)
        same = torch.equal(probe(asked, usual), probe(asked._replace(tokens=changed), usual))
        assert same != sees_last


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_on_the_known_entropy_world_it_is_what_theory_says(tmp_path: Path) -> None:
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3)))
    world.write_store(tmp_path / "store", 32, 8, steps=1000, seed=0)
    config = ProbeConfig(
        horizons=(1,),
        lags=(1,),
        seeds=1,
        context=2,
        num_windows=3000,
        steps=300,
        batch_size=64,
        dropout=0.0,
        learning_rate=4e-3,
        weight_decay=0.01,
    )
    probing = Probing(TokenStore(tmp_path / "store"), config, tmp_path / "out", "cpu")
    at_once, late = probing.estimates()
    per_frame = 6 * (world.entropy(with_actions=False) - world.entropy()) / math.log(2)
    assert at_once.bits_per_frame.value == pytest.approx(per_frame, rel=0.02)
    assert late.bits_per_frame.value == pytest.approx(0, abs=0.02)  # the next row tells nothing
