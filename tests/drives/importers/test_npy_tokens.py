"""Tokens in .npy files and latents in HDF5: what their files do not say is asked for."""

import numpy as np
import pytest
from dmc_files import write_dmc

from drives.importers.__main__ import main
from drives.importers.tokens.dmc_latents import LatentOptions, import_latents
from drives.importers.tokens.npy_tokens import NpyOptions, import_npy
from drives.tokens.store import TokenStore
from training.errors import BadInput

OPTIONS = NpyOptions(fps=10, vocab_size=15360)


def write(file, shape=(6, 18, 32), high=15360, kind=np.int64):
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, high, shape).astype(kind)
    np.save(file, values)
    return values


def test_files_become_drives_called_after_their_paths(tmp_path):
    first = write(tmp_path / "in/train/a/0001.npy")
    write(tmp_path / "in/val/0002.npy", (4, 18, 32))
    words = ["--fps=10", "--vocab-size=15360"]
    main(["npy_tokens", str(tmp_path / "in"), str(tmp_path / "out"), *words])
    store = TokenStore(tmp_path / "out")
    assert (store.spec.grid, store.spec.image_size) == ((1, 18, 32), (288, 512))
    assert {d.id: d.split for d in store.all} == {"train_a_0001": "train", "val_0002": "val"}
    np.testing.assert_array_equal(store.find("train_a_0001").tokens, first)


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        ((6, 9, 32), np.int64, "token grid is"),
        ((6, 18 * 32), np.int64, "give integers"),
        ((6, 18, 32), np.float32, "give integers"),
        ((1, 18, 32), np.int64, "has 1 frames"),
    ],
)
def test_files_that_do_not_fit_are_named(shape, kind, said, tmp_path):
    write(tmp_path / "in/a.npy")
    write(tmp_path / "in/b.npy", shape, kind=kind)
    with pytest.raises(BadInput, match=said) as error:
        import_npy(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert "b.npy" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_tokens_outside_and_pickles_are_refused(tmp_path):
    write(tmp_path / "a/a.npy", high=20000)
    with pytest.raises(BadInput, match=r"outside the vocabulary 0\.\.15359"):
        import_npy(tmp_path / "a", tmp_path / "out", OPTIONS)
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b/b.npy", np.array([{"a": 1}], object))
    with pytest.raises(BadInput, match="is not a NumPy array file"):
        import_npy(tmp_path / "b", tmp_path / "out", OPTIONS)
    with pytest.raises(BadInput, match="--fps and --vocab-size"):
        import_npy(tmp_path / "a", tmp_path / "out", NpyOptions())


@pytest.mark.parametrize(
    ("kind", "side", "vocab"), [("vae_latents", 5, 1024), ("dino_latents", 14, 8192)]
)
def test_latents_become_a_store_with_actions(kind, side, vocab, tmp_path):
    arrays = write_dmc(tmp_path / "in/a.hdf5", (12, 12, 12), latents=kind)
    main(["dmc_latents", str(tmp_path / "in"), str(tmp_path / "out"), "--fps=50"])
    store = TokenStore(tmp_path / "out")
    assert (store.spec.grid, store.spec.vocab_size) == ((1, side, side), vocab)
    assert store.action_names == tuple(f"action_{i}" for i in range(6))
    assert store.columns == (*store.action_names, "reward")
    assert {d.id: d.split for d in store.all} == {
        "a-0000": "train",
        "a-0001": "val",
        "a-0002": "test",
    }
    second = store.find("a-0001")
    np.testing.assert_array_equal(second.tokens.reshape(12, -1), arrays[kind][12:24])
    np.testing.assert_array_equal(second.actions[:11], arrays["action"][13:24])
    np.testing.assert_array_equal(second.columns[:11, 6], arrays["reward"][13:24])


def test_latents_need_their_key_and_a_rate(tmp_path):
    write_dmc(tmp_path / "a.hdf5")
    with pytest.raises(BadInput, match="vae_latents or dino_latents"):
        import_latents(tmp_path / "a.hdf5", tmp_path / "out", LatentOptions(fps=50))
    with pytest.raises(BadInput, match="--fps"):
        import_latents(tmp_path / "a.hdf5", tmp_path / "out", LatentOptions())
