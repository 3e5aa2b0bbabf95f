"""commaVQ's tokens become a store once, or are refused by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from recordings import comma_tokens

from drives.importers.tokens.commavq import SPEC, import_commavq
from drives.tokens.store import TokenStore
from training.errors import BadInput


def test_commavq_makes_a_store_once(tmp_path: Path) -> None:
    (tmp_path / "minute").mkdir()
    file = tmp_path / "minute/tokens.npy"
    np.save(file, comma_tokens())
    store = import_commavq(tmp_path / "minute", tmp_path / "out", num_train=40, num_test=15)
    assert store.spec == SPEC
    (train,), (test,) = store.drives("train"), store.drives("test")
    assert (train.id, test.id) == ("minute-train", "minute-test")
    np.testing.assert_array_equal(train.tokens, comma_tokens()[:40])
    np.testing.assert_array_equal(test.tokens, comma_tokens()[45:])
    assert train.actions.shape == (40, 0)
    stamp = (tmp_path / "out/minute-train.arrow").stat().st_mtime_ns
    assert import_commavq(file, tmp_path / "out", 40, 15).hash == store.hash
    assert (tmp_path / "out/minute-train.arrow").stat().st_mtime_ns == stamp
    with pytest.raises(BadInput, match="holds other frames as minute-train"):
        import_commavq(file, tmp_path / "out", 30, 15)
    copy = tmp_path / "copy/minute"
    shutil.copytree(file.parent, copy, copy_function=shutil.copy)  # under other dates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drives.importers.tokens.commavq.list_segments", None)  # it is not read again
        assert import_commavq(copy, tmp_path / "out", 40, 15).hash == store.hash
    assert [path.name for path in file.parent.iterdir()] == ["tokens.npy"]
    np.save(tmp_path / "flat.npy", comma_tokens().reshape(60, 128).astype(np.int64))
    flat = import_commavq(tmp_path / "flat.npy", tmp_path / "flat", 40, 15)
    np.testing.assert_array_equal(flat.drives("train")[0].tokens, train.tokens)
    assert flat.drives("train")[0].id == "flat-train"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (comma_tokens() + 1, "holds token 1024, outside the vocabulary 0..1023"),
        (comma_tokens() - 1, "holds token -1"),
        (comma_tokens().astype(np.float32), "holds no array of integers"),
        (comma_tokens().reshape(60, 16, 8), r"token grid is \(16, 8\)"),
        (comma_tokens().reshape(120, 64), r"token grid is \(64,\)"),
        (comma_tokens(20), "fit in"),
    ],
)
def test_commavq_bad_tokens_are_named(tmp_path: Path, tokens: np.ndarray, message: str) -> None:
    np.save(tmp_path / "tokens.npy", tokens)
    with pytest.raises(BadInput, match=message):
        import_commavq(tmp_path, tmp_path / "out", 40, 15)
    assert not (tmp_path / "out").exists()


def test_commavq_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no \*\.tar\.gz, no \*\.token\.npy and no tokens"):
        import_commavq(tmp_path, tmp_path / "out")
    with pytest.raises(BadInput, match="no such file or folder"):
        import_commavq(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "tokens.npy").write_text("tokens")
    with pytest.raises(BadInput, match=r"tokens\.npy: is not a NumPy array"):
        import_commavq(tmp_path, tmp_path / "out")


def test_commavq_reads_the_published_minute(shared: Path, tmp_path: Path) -> None:
    tokens = np.load(shared / "data/commavq/tokens.npy")
    store = import_commavq(shared / "data/commavq", tmp_path)
    np.testing.assert_array_equal(store.drives("train")[0].tokens, tokens[:1000])
    np.testing.assert_array_equal(store.drives("test")[0].tokens, tokens[1000:])
    assert TokenStore(tmp_path).hash == store.hash
