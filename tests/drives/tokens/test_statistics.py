"""Statistics of actions in a store's manifest: of the train drives, for old stores as well."""

import json

import numpy as np
import pytest

from drives.actions.statistics import ActionStatistics, statistics_of
from drives.tokens import statistics
from drives.tokens.manifest import MANIFEST
from drives.tokens.spec import TokenSpec
from drives.tokens.statistics import NOTE, note_statistics, noted_statistics
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput

SPEC = TokenSpec((1, 2, 2), 16, 10.0, 1, (32, 32), "test")
NAMES = ("steering", "speed_mps")


def write_store(root, splits=("train", "train", "val")) -> tuple[TokenStoreWriter, np.ndarray]:
    rng = np.random.default_rng(0)
    writer, rows = TokenStoreWriter(root, SPEC, NAMES), []
    for index, split in enumerate(splits):
        actions = rng.normal(size=(50, 2)).astype(np.float32)
        actions = actions if split == "train" else actions + 100
        rows.append(actions)
        writer.write(f"d{index}", split, np.zeros((50, 2, 2), np.int64), actions)
    return writer, np.concatenate(rows[:2]).astype(np.float64)


def test_the_manifest_holds_what_numpy_says_of_the_train_drives(tmp_path):
    writer, rows = write_store(tmp_path / "s")
    assert noted_statistics(TokenStore(tmp_path / "s")) is None, "of a store of before"
    note_statistics(writer)
    store = TokenStore(tmp_path / "s")
    noted = store.manifest["notes"][NOTE]["columns"]["speed_mps"]
    assert noted["mean"] == pytest.approx(rows[:, 1].mean())
    assert noted["std"] == pytest.approx(rows[:, 1].std())
    assert noted["quantiles"]["0.25"] == pytest.approx(np.quantile(rows[:, 1], 0.25))
    assert noted["quantiles"]["1.0"] == rows[:, 1].max() < 50, "no val drive is in it"
    found = noted_statistics(store)
    assert found == statistics_of(NAMES, [rows])
    assert found.num_rows == found.num_read == 100
    assert store.hash == TokenStore(tmp_path / "s").hash


def test_a_note_of_fewer_drives_is_old(tmp_path):
    writer, _ = write_store(tmp_path / "s")
    note_statistics(writer)
    writer.write("d9", "train", np.zeros((50, 2, 2), np.int64), np.full((50, 2), 7, np.float32))
    assert noted_statistics(TokenStore(tmp_path / "s")) is None
    note_statistics(writer)
    assert noted_statistics(TokenStore(tmp_path / "s")).num_rows == 150


def test_nothing_is_noted_of_a_part(tmp_path):
    writer, _ = write_store(tmp_path / "s")
    (tmp_path / "s" / "d2.arrow").unlink()  # of val
    note_statistics(writer)
    assert TokenStore(tmp_path / "s", on_corrupt="skip").manifest["notes"][NOTE]["num_rows"] == 100
    writer, _ = write_store(tmp_path / "t")
    (tmp_path / "t" / "d0.arrow").unlink()
    note_statistics(writer)
    assert "notes" not in TokenStore(tmp_path / "t", on_corrupt="skip").manifest


def test_a_store_that_is_packed_meanwhile_is_noted_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 4)
    monkeypatch.setattr("drives.tokens.store.CHECKED_AT_ONCE", 0)
    writer, _ = write_store(tmp_path / "s")

    def open_early(*args, **how):
        store = TokenStore(*args, **how)
        writer.write("d3", "train", np.zeros((50, 2, 2), np.int64), np.zeros((50, 2)))
        return store

    monkeypatch.setattr(statistics, "TokenStore", open_early)
    note_statistics(writer)
    noted = TokenStore(tmp_path / "s").manifest["notes"][NOTE]
    assert (noted["num_drives"], noted["num_rows"]) == (3, 100)


def test_a_store_without_train_drives_or_columns_has_none(tmp_path):
    writer, _ = write_store(tmp_path / "s", ("val", "test", "val"))
    note_statistics(writer)
    assert noted_statistics(TokenStore(tmp_path / "s")) is None
    bare = TokenStoreWriter(tmp_path / "bare", SPEC, ())
    bare.write("a", "train", np.zeros((5, 2, 2), np.int64), np.zeros((5, 0), np.float32))
    note_statistics(bare)
    assert noted_statistics(TokenStore(tmp_path / "bare")).names == ()


def test_a_damaged_note_is_named(tmp_path):
    found = statistics_of(NAMES, [np.ones((3, 2))]).to_json()
    assert ActionStatistics.from_json(json.loads(json.dumps(found)), "m").mean == (1, 1)
    for damaged in (float("inf"), 0.0):
        other = json.loads(json.dumps(found))
        other["columns"]["steering"]["quantiles"]["1.0"] = damaged
        with pytest.raises(BadInput, match="quantiles do not rise"):
            ActionStatistics.from_json(other, MANIFEST)
    del found["columns"]["steering"]["quantiles"]["0.5"]
    with pytest.raises(BadInput, match=r"manifest\.json: statistics of actions are damaged"):
        ActionStatistics.from_json(found, MANIFEST)


def test_many_rows_are_read_evenly(monkeypatch):
    monkeypatch.setattr("drives.actions.statistics.MAX_ROWS", 10)
    found = statistics_of(["a"], [np.arange(100.0)[:, None]])
    assert (found.num_rows, found.num_read) == (100, 10)
    assert found.mean == (45,)
