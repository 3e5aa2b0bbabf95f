"""Mixtures and balance: how often windows come, and that the order stays exact."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drives.clips.config import BalanceConfig
from drives.mixture import MixtureSource
from drives.tokens.mixed import MixedStore
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput
from training.loading.order import DataOrder, Weights
from worldmodel.data import TokenDataModule
from worldmodel.window_weights import window_weights
from worldmodel.windows import TokenWindows

SPEC = TokenSpec((1, 1, 1), 9, 10, 1, (8, 8), "test")
EVEN = BalanceConfig()


def store(root: Path, token: int, lengths: list[int], steering: Any = None) -> TokenStore:
    writer = TokenStoreWriter(root, SPEC, ["steering"])
    for number, length in enumerate(lengths):
        rows = np.zeros(length) if steering is None else np.asarray(steering)
        writer.write(f"d{number}", "train", np.full((length, 1, 1), token), rows[:, None], {})
    return TokenStore(root)


def drawn(data: TokenStore, balance: BalanceConfig, epochs: int = 40) -> list[int]:
    windows = TokenWindows(data.drives("train"), 4)
    counts = np.diff(windows.ends, prepend=0).tolist()
    weights = window_weights(data, windows.drives, counts, 4, balance)
    order = DataOrder(len(windows), epochs * len(windows), 1, 0, weights=weights)
    return [index for batch in order for index in batch]


def test_windows_come_by_the_weights_of_their_parts(tmp_path: Path) -> None:
    parts = {
        "long": store(tmp_path / "long", 1, [40, 23]),
        "short": store(tmp_path / "short", 2, [3, 13]),
    }
    for shares in ((0.7, 0.3), (1.0, 3.0)):
        mixed = MixedStore(parts, shares)
        windows = TokenWindows(mixed.drives("train"), 4)
        ids = drawn(mixed, EVEN)
        came = Counter(int(windows[index][0][0, 0, 0]) for index in ids)
        assert came[2] / len(ids) == pytest.approx(shares[1] / sum(shares), abs=0.01)
        within = Counter(index for index in ids if index >= len(windows) - 10)
        assert max(within.values()) - min(within.values()) <= 0.2 * max(within.values())
    alike = MixedStore(parts)
    assert drawn(alike, EVEN, 1) == list(
        i for b in DataOrder(len(windows), len(windows), 1, 0) for i in b
    )


def test_a_part_without_windows_is_named(tmp_path: Path) -> None:
    parts = {"a": store(tmp_path / "a", 1, [9]), "b": store(tmp_path / "b", 2, [3])}
    with pytest.raises(BadInput, match=r"b: has no train window.*data\.source\.roots"):
        drawn(MixedStore(parts, (1.0, 1.0)), EVEN)


def test_rare_turns_are_drawn_more_often(tmp_path: Path) -> None:
    steering = np.where(np.arange(103) < 90, 0.0, 1.0)
    data = store(tmp_path / "a", 1, [103], steering)
    balance = BalanceConfig(features=("steering",), alpha=1.0, bins=2)
    ids = np.array(drawn(data, balance))
    means = np.lib.stride_tricks.sliding_window_view(steering, 4).mean(-1)
    assert np.mean(means[ids] >= 0.5) == pytest.approx(0.5, abs=0.01)  # both cells alike
    assert np.mean(means >= 0.5) < 0.15
    with pytest.raises(BadInput, match=r"data\.balance\.features: 'brake' is no action column"):
        drawn(data, BalanceConfig(features=("brake",)))


def test_the_weighted_order_resumes_and_splits_over_ranks() -> None:
    weights = Weights(np.linspace(1, 2, 50))
    whole = [i for batch in DataOrder(50, 30, 4, 3, weights=weights) for i in batch]
    later = DataOrder(50, 30, 4, 3, weights=weights)
    later.samples_consumed = 40
    assert [i for batch in later for i in batch] == whole[40:]


def test_a_mixture_passes_every_check_before_training(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        store(tmp_path / name, number + 1, [30, 31])
    roots = [str(tmp_path / name) for name in "ab"]
    source = MixtureSource(roots=roots, cache=str(tmp_path / "cache"))
    module = TokenDataModule(source, 4, duplicates="warn")
    module.prepare_data()
    assert len(module.store.all) == 4
    assert len(module.provenance()["train_footage"]) == 4
    assert module.model_facts()["action_names"] == ("steering",)
