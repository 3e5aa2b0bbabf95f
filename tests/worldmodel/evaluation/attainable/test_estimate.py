"""What actions can tell: on the known-entropy world it is H0 - H1."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from drives.tokens.store import TokenStore
from training.errors import BadInput
from worldmodel.evaluation.attainable import estimate
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.estimate import Attainable, Probing, advice
from worldmodel.evaluation.intervals import Estimate
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld

QUICK = ProbeConfig(
    horizons=(1, 2), lags=(0, 1), seeds=1, context=2, num_windows=40, steps=4, dim=24, checks=2
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
    assert len(list((tmp_path / "out/probes").glob("*.npz"))) == 5  # 3 with, 2 without actions
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
    [{"look_back": 4}, {"dropout": 2}, {"num_layers": 0}, {"inner_layers": -1}, {"num_heads": 5}],
    ids=str,
)
def test_a_probe_that_no_network_can_be_is_named_by_its_setting(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(BadInput, match=rf"^probe\..*\b{name}=") as caught:
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
    late = advice([answer(1, 0, 0.5), answer(1, 2, 0.8)], 100, 10)
    assert late[1].startswith("rows +2 steps away tell more (0.80 bits)")
    assert "interval holds 0" in advice([answer(1, 0, 0.02, low=-0.1)], 100, 10)[1]


@pytest.mark.slow
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
        steps=1000,
        batch_size=32,
        dim=48,
        look_back=3,
        learning_rate=4e-3,
        weight_decay=0.01,
    )
    probing = Probing(TokenStore(tmp_path / "store"), config, tmp_path / "out", "cpu")
    at_once, late = probing.estimates()
    per_frame = 6 * (world.entropy(with_actions=False) - world.entropy()) / math.log(2)
    assert at_once.bits_per_frame.value == pytest.approx(per_frame, rel=0.02)
    assert late.bits_per_frame.value == pytest.approx(0, abs=0.02)  # the next row tells nothing
