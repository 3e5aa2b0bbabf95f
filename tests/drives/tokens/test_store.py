"""Token stores: what is written reads back without a copy, and what does not fit is named."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.disk.hashing import file_sha256
from training.disk.leftovers import partial_of
from training.disk.records import read_record, write_record
from training.errors import BadInput

SPEC = TokenSpec(
    grid=(1, 3, 4),
    vocab_size=40,
    fps=10,
    frames_per_step=1,
    image_size=(24, 32),
    tokenizer="test",
    factors=(8, 5),
)
NAMES = ("steering", "speed_mps")
NUM_STEPS = 2500  # more than one batch of the Arrow writer's default


def tokens(num_steps: int = NUM_STEPS, spec: TokenSpec = SPEC) -> np.ndarray:
    shape = (num_steps, *(spec.grid[1:] if spec.grid[0] == 1 else spec.grid))
    return np.random.default_rng(0).integers(0, spec.vocab_size, shape)


def actions(num_steps: int = NUM_STEPS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num_steps, 2)).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    writer = TokenStoreWriter(tmp_path / "store", SPEC, NAMES)
    writer.write("b", "val", tokens(7), actions(7), {"source": "there"})
    writer.write("a", "train", tokens(), actions())
    return tmp_path / "store"


def edit_manifest(root: Path, **values: object) -> None:
    """As release 0.1 wrote it, without a seal."""
    file = root / "manifest.json"
    held = {key: value for key, value in json.loads(file.read_text()).items() if key != "sha256"}
    file.write_text(json.dumps({**held, "schema_version": 1, **values}))


def refuse(root: Path, *words: str) -> None:
    with pytest.raises(BadInput) as error:
        TokenStore(root)
    for word in words:
        assert word in str(error.value)


def test_a_store_reads_back_as_it_was_written(root: Path) -> None:
    store = TokenStore(root)
    assert store.spec == SPEC
    assert store.action_names == NAMES
    (drive,) = store.drives("train")
    assert (drive.id, drive.split) == ("a", "train")
    np.testing.assert_array_equal(drive.tokens, tokens())
    np.testing.assert_array_equal(drive.actions, actions())
    assert drive.tokens.dtype == np.uint16
    assert store.manifest["drives"]["b"]["meta"] == {"source": "there"}


def test_arrays_are_views_of_the_file(root: Path) -> None:
    (drive,) = TokenStore(root).drives("train")
    # Arrow's memory is read-only; a copy would be writable.
    assert not drive.tokens.flags.writeable
    assert not drive.actions.flags.writeable


@pytest.mark.parametrize(
    "spec", [replace(SPEC, grid=(2, 3, 4)), replace(SPEC, vocab_size=2**18, factors=())]
)
def test_clips_and_large_vocabularies_fit(tmp_path: Path, spec: TokenSpec) -> None:
    writer = TokenStoreWriter(tmp_path, spec, ())
    writer.write("a", "train", tokens(5, spec), np.zeros((5, 0), np.float32))
    store = TokenStore(tmp_path)
    (drive,) = store.drives("train")
    np.testing.assert_array_equal(drive.tokens, tokens(5, spec))
    assert drive.actions.shape == (5, 0)
    assert store.spec == spec


def test_a_missing_split_is_an_error_and_nothing_replaces_it(root: Path) -> None:
    store = TokenStore(root)
    assert [drive.id for drive in store.drives("val")] == ["b"]
    with pytest.raises(BadInput, match="no drive is in the test split, but 1 in train, 1 in val"):
        store.drives("test")
    with pytest.raises(BadInput, match="split is 'dev'"):
        store.drives("dev")
    TokenStoreWriter(root.parent / "other", SPEC, NAMES).write("b", "val", tokens(7), actions(7))
    with pytest.raises(BadInput, match="no drive is in the train split"):
        TokenStore(root.parent / "other").drives("train")


def test_an_interrupted_store_goes_on_where_it_stopped(root: Path) -> None:
    writer = TokenStoreWriter(root, SPEC, NAMES)
    assert writer.has("a")
    assert not writer.has("c")
    writer.write("c", "test", tokens(3), actions(3))
    assert [d.id for split in ("train", "val", "test") for d in TokenStore(root).drives(split)] == [
        "a",
        "b",
        "c",
    ]
    (root / "a.arrow").unlink()
    assert not TokenStoreWriter(root, SPEC, NAMES).has("a")


def test_the_hash_names_data_split_and_tokenizer(root: Path) -> None:
    before = TokenStore(root).hash
    assert TokenStore(root).hash == before
    TokenStoreWriter(root, SPEC, NAMES).write("c", "test", tokens(3), actions(3))
    assert TokenStore(root).hash != before


def test_another_spec_does_not_go_into_the_same_folder(root: Path) -> None:
    with pytest.raises(BadInput, match="another spec"):
        TokenStoreWriter(root, replace(SPEC, vocab_size=41, factors=()), NAMES)
    with pytest.raises(BadInput, match="another action_names"):
        TokenStoreWriter(root, SPEC, ("steering",))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((5, 3, 4), 40), "step 0 holds token 40, outside the vocabulary 0..39"),
        (np.full((5, 3, 4), -1), "step 0 holds token -1"),
        (np.zeros((5, 4, 3), int), r"token grid is \(4, 3\), but the tokenizer has \(3, 4\)"),
        (np.zeros((5, 12), int), "token grid is"),
        (np.zeros((5, 3, 4)), "tokens are float64; give integers"),
        (np.zeros((4, 3, 4), int), "4 token steps"),
        (np.zeros((0, 3, 4), int), "0 token steps"),
    ],
)
def test_tokens_that_do_not_fit_are_not_written(
    tmp_path: Path, bad: np.ndarray, message: str
) -> None:
    writer = TokenStoreWriter(tmp_path, SPEC, NAMES)
    with pytest.raises(BadInput, match=message):
        writer.write("a", "train", bad, actions(5))
    assert not list(tmp_path.iterdir())


def test_actions_and_splits_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    writer = TokenStoreWriter(tmp_path, SPEC, NAMES)
    with pytest.raises(BadInput, match="actions of shape"):
        writer.write("a", "train", tokens(5), actions(5)[:, :1])
    rows = actions(5)
    rows[2, 1] = np.nan
    with pytest.raises(BadInput, match="actions of step 2 are not finite"):
        writer.write("a", "train", tokens(5), rows)
    with pytest.raises(BadInput, match="split is 'dev'"):
        writer.write("a", "dev", tokens(5), actions(5))


def test_a_missing_store_names_the_command(tmp_path: Path) -> None:
    refuse(tmp_path, "manifest.json: no token store there", "python -m tokenizer.encode")


def test_another_schema_or_a_damaged_manifest_is_named(root: Path) -> None:
    edit_manifest(root, schema_version=2)
    refuse(root, "manifest.json: truncated or altered", "seal is broken or gone", "encode the dri")
    edit_manifest(root, schema_version=1, spec={"grid": [1, 3, 4]})
    refuse(root, "manifest.json: ", "spec.vocab_size is missing", "encode the drives again")
    (root / "manifest.json").write_text("[")
    refuse(root, "manifest.json: truncated, altered, or no JSON", "encode the drives again")
    write_record(root / "manifest.json", {"schema_version": 4})
    refuse(root, "manifest.json", "schema version is 4, this release reads 1 to 3")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"train"', b'"trbin"'),
        (b'"train"', b'"val"'),
        (b'"fps": 10', b'"fps": 90'),
        (b'"file": "a.arrow"', b'"file": "b.arrow"'),
        (b'"schema_version": 2', b'"schema_version": 1'),
        (b'"sha256"', b'"sha257"'),
        (b"\n}", b"\n }"),
    ],
)
def test_a_changed_manifest_is_noticed(root: Path, old: bytes, new: bytes) -> None:
    file = root / "manifest.json"
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))
    refuse(root, "manifest.json: truncated or altered", "encode the drives again")


def test_a_store_without_a_seal_opens_and_has_one_after_the_next_drive(root: Path) -> None:
    sealed = TokenStore(root)
    edit_manifest(root)
    old = TokenStore(root)
    assert (old.spec, old.hash, old.digests()) == (sealed.spec, sealed.hash, sealed.digests())
    TokenStoreWriter(root, SPEC, NAMES).write("c", "test", tokens(3), actions(3))
    assert read_record(root / "manifest.json")["schema_version"] == 2
    assert len(TokenStore(root).digests()) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fps": 0}, "fps=0"),
        ({"fps": -10}, "fps=-10"),
        ({"fps": "10"}, "spec.fps='10': give a valid number"),
        ({"grid": [1, 3]}, "spec.grid"),
        ({"grid": [0, 3, 4]}, "grid=(0, 3, 4)"),
        ({"grid": [1, 3.5, 4]}, "spec.grid.1=3.5"),
        ({"image_size": [0, 32]}, "image_size=(0, 32)"),
        ({"factors": [8, 6]}, "factors=(8, 6): their product is not 40"),
        ({"bit_order": "middle"}, "bit_order='middle'"),
        ({"frames_per_step": 0}, "frames_per_step=0"),
        ({"frame_per_step": 1}, "spec.frame_per_step is unknown"),
        ({"preprocessing": {"mean": [0, 0]}}, "mean=(0.0, 0.0): give 3 numbers"),
    ],
)
def test_an_impossible_spec_is_refused_though_nothing_seals_it(
    root: Path, values: dict, words: str
) -> None:
    spec = json.loads((root / "manifest.json").read_text())["spec"]
    edit_manifest(root, spec={**spec, **values})
    refuse(root, "manifest.json: spec", words, "encode the drives again")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"split": "trbin"}, "split='trbin': choose one of train, val, test"),
        ({"file": "../a.arrow"}, "is no file of the store's own folder"),
        ({"file": "/etc/passwd"}, "is no file of the store's own folder"),
        ({"file": "b.arrow"}, "2 drives are in one file, b.arrow"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"num_steps": "7"}, "drives.a.num_steps='7'"),
        ({"sha256": "beef"}, "sha256='beef'"),
    ],
)
def test_an_impossible_entry_is_refused_though_nothing_seals_it(
    root: Path, values: dict, words: str
) -> None:
    drives = json.loads((root / "manifest.json").read_text())["drives"]
    edit_manifest(root, drives={**drives, "a": {**drives["a"], **values}})
    refuse(root, "manifest.json", words, "encode the drives again")


def test_no_drives_and_columns_of_one_name_are_refused(root: Path) -> None:
    edit_manifest(root, drives={})
    refuse(root, "the store holds no drives; encode the drives again")
    edit_manifest(root, action_names=["steering", "steering"])
    refuse(root, "action_names=('steering', 'steering')")


def test_what_killed_writers_left_is_swept(root: Path) -> None:
    mine = partial_of(root / "c.arrow")
    dead = mine.with_name(mine.name.replace(f"@{os.getpid()}-", f"@{os.getpid()}-1"))
    for path in (mine, dead):
        path.write_bytes(b"half")
    TokenStoreWriter(root, SPEC, NAMES)
    assert mine.exists()
    assert not dead.exists()


def test_a_missing_altered_or_cut_file_is_named(root: Path) -> None:
    file = root / "a.arrow"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refuse(root, "a.arrow: altered since it was written")
    assert len(TokenStore(root, verify=False).drives("train")[0].tokens) == NUM_STEPS
    file.write_bytes(data[:200])
    with pytest.raises(BadInput, match=r"a\.arrow: is not what the manifest describes"):
        TokenStore(root, verify=False)
    file.unlink()
    refuse(root, "a.arrow: missing")


def test_a_file_of_another_grid_or_vocabulary_is_named(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    edit_manifest(root, spec={**manifest["spec"], "grid": [1, 6, 4]})
    refuse(root, "a.arrow", "not lists of 24")
    edit_manifest(root, spec={**manifest["spec"], "vocab_size": 30, "factors": []})
    refuse(root, "a.arrow", "outside the vocabulary 0..29", "another tokenizer")
    edit_manifest(root, spec=manifest["spec"], action_names=["steering"])
    refuse(root, "a.arrow", "column actions")


def test_a_file_of_another_length_is_named(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "a.arrow").write_bytes((root / "b.arrow").read_bytes())
    manifest["drives"]["a"]["sha256"] = file_sha256(root / "b.arrow")
    edit_manifest(root, drives=manifest["drives"])
    refuse(root, "a.arrow", "7 steps where the manifest says 2500")


def test_a_file_that_changed_under_its_date_is_named_though_its_hash_was_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drives.content.TICK_S", -1.0)
    TokenStore(root)
    file = root / "a.arrow"
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    time.sleep(0.02)  # a tick of the file system's clock
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    refuse(root, "a.arrow: altered since it was written")
