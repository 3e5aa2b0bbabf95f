"""`data=known_entropy` makes its store once, whole, and says what its floor is."""

from dataclasses import replace

import numpy as np
import pytest

from drives.sources import TokenSource
from training.errors import BadInput
from worldmodel.data import TokenDataModule
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.source import KnownEntropySource
from worldmodel.known_entropy.world import KnownEntropyWorld

WORLD = KnownEntropyConfig(grid=(1, 2, 3), vocab_size=5)


@pytest.fixture
def source(tmp_path) -> KnownEntropySource:
    return KnownEntropySource(
        cache=str(tmp_path), num_train=2, num_test=1, steps=12, seed=3, world=WORLD
    )


def test_the_store_is_the_worlds_and_is_made_once(source):
    store = source.open()
    assert store.spec == KnownEntropyWorld(WORLD).spec
    tokens, actions = KnownEntropyWorld(WORLD).sample(12, [3, 0, 1])
    np.testing.assert_array_equal(store.drives("train")[1].tokens, tokens)
    np.testing.assert_array_equal(store.drives("train")[1].actions, actions)
    assert len(store.drives("test")) == 1
    before = {f.name: f.stat().st_mtime_ns for f in source.folder.iterdir()}
    source.open()
    assert {f.name: f.stat().st_mtime_ns for f in source.folder.iterdir()} == before


def test_an_interrupted_store_is_made_again(source, monkeypatch):
    sample, left = KnownEntropyWorld.sample, iter([True, False])

    def interrupted(*args):
        if not next(left):
            raise KeyboardInterrupt
        return sample(*args)

    monkeypatch.setattr(KnownEntropyWorld, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.open()
    assert not source.folder.exists()
    monkeypatch.setattr(KnownEntropyWorld, "sample", sample)
    assert len(source.open().drives("train")) == 2


@pytest.mark.parametrize(
    "settings",
    [{"num_train": 3}, {"steps": 13}, {"seed": 4}, {"world": replace(WORLD, vocab_size=6)}],
)
def test_every_setting_has_a_folder_of_its_own(source, settings):
    assert replace(source, **settings).folder != source.folder
    assert replace(source, cache="elsewhere").folder.name == source.folder.name


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"steps": 1}, {"num_train": 0}, {"num_test": -1}, {"format": "commavq"}],
    ids=str,
)
def test_what_no_world_can_have_is_named_before_any_work(source, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(BadInput, match=rf"^data\.source\.{name}={value}"):
        replace(source, **wrong)
    assert not source.folder.parent.exists()


def test_a_root_is_used_as_it_is_unless_it_holds_another_world(source, tmp_path):
    named = replace(source, root=str(tmp_path / "mine"))
    assert named.open().root == tmp_path / "mine"
    other = replace(named, world=replace(WORLD, resample_prob=0.5))
    with pytest.raises(BadInput, match=r"mine: holds tokens of .* not of this world"):
        other.open()


def test_a_plan_makes_nothing(source):
    store_facts = source.planned()
    assert not source.folder.exists()
    store = source.open()
    assert store_facts == (store.spec, store.action_names, store.captioned)


def test_the_data_module_knows_the_floors_of_its_validation_windows(source):
    module = TokenDataModule(source, context_steps=3, num_val_windows=4)
    module.prepare_data()
    world, windows = KnownEntropyWorld(WORLD), module.dataset("val")
    paid = [world.optimal_nll(*windows[i]).mean() for i in (0, 3, 6, 9)]
    assert list(module.loss_floors().values()) == pytest.approx([world.entropy(), np.mean(paid)])
    other = TokenDataModule(TokenSource(str(source.folder)), context_steps=2)
    other.prepare_data()
    assert other.loss_floors() == {}


def test_the_config_composes_and_refuses(composed, tmp_path):
    from hydra.utils import instantiate

    cfg = composed("gpt_tiny", "data=known_entropy", f"paths.data={tmp_path}")
    source = instantiate(cfg.data.source, _convert_="object")
    assert KnownEntropyWorld(source.world).spec == KnownEntropyWorld().spec
    cfg = composed("gpt_tiny", "data=known_entropy", "data.source.world.resample_prob=0")
    with pytest.raises(Exception, match="resample_prob=0") as error:
        instantiate(cfg.data.source, _convert_="object")
    assert isinstance(error.value.__cause__, BadInput)
