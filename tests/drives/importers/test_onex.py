"""1X's recordings read as published, and written into a token store without a changed bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from drives.importers.__main__ import main
from drives.importers.tokens.onex_v1 import import_onex_v1, read_onex_v1
from drives.importers.tokens.onex_v2 import STATE_NAMES, import_onex_v2, read_onex_v2
from drives.sources import TokenSource
from drives.tokens.store import TokenStore
from training.errors import BadInput
from worldmodel.windows import TokenWindows, collate


@pytest.fixture
def published(shared):
    folder = shared / "parity" / "onex_data"
    said = json.loads((folder / "config.json").read_text())
    return folder, said, load_file(folder / "io.safetensors")


def copied(source: Path, to: Path) -> Path:
    """A copy that may be written to."""
    shutil.copytree(source, to, copy_function=shutil.copyfile)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def drives_of(store: TokenStore) -> list:
    return [store.find(name) for name in store.manifest["drives"]]


def test_version_1_is_read_as_published(published):
    folder, said, io = published
    found = read_onex_v1(folder / "val_v1.1")
    want = said["v1_1"]
    assert found.tokens.shape == (want["num_images"], want["s"], want["s"])
    assert found.tokens.dtype == np.uint32
    np.testing.assert_array_equal(found.tokens[0], io["frame_first"])
    np.testing.assert_array_equal(found.tokens[-1], io["frame_last"])
    np.testing.assert_array_equal(found.segment_ids, io["segment_ids"])
    assert {name: rows.shape[1] for name, rows in found.actions.items()} == want["actions"]
    rows = [0, want["num_images"] // 2, want["num_images"] - 1]
    for name, values in found.actions.items():
        np.testing.assert_array_equal(values[rows], io[f"action_{name}_rows"])
    assert [stop - start for _, start, stop in found.segments()] == [
        segment["frames"] for segment in want["segments"]
    ]
    assert (found.spec.bit_order, found.spec.fps, found.spec.vocab_size) == ("little", 30, 2**18)
    assert read_onex_v1(folder / "no_segments").segment_ids is None


def test_version_1_becomes_a_store_of_equal_bits(published, tmp_path):
    folder, said, _ = published
    store = import_onex_v1(folder / "val_v1.1", tmp_path / "store")
    drives, raw = drives_of(store), read_onex_v1(folder / "val_v1.1")
    assert [drive.id for drive in drives] == [
        f"val_v1.1-{segment['id']:06d}" for segment in said["v1_1"]["segments"]
    ]
    assert {drive.split for drive in drives} == {"val"}
    np.testing.assert_array_equal(np.concatenate([d.tokens for d in drives]), raw.tokens)
    actions = np.concatenate([d.actions for d in drives])
    np.testing.assert_array_equal(actions, np.concatenate([*raw.actions.values()], axis=1))
    assert store.action_names[:3] == ("driving_command_0", "driving_command_1", "joint_pos_0")
    assert store.action_names[-1] == "r_hand_closure"


@pytest.mark.parametrize("name", ["val_v2.0", "train_v2.0"])
def test_version_2_is_read_as_published(published, name):
    folder, said, io = published
    settings, shards = read_onex_v2(folder / name)
    want = said["v2_0"][name]
    assert settings.num_shards == len(shards) == len(want["shard_num_frames"])
    part = name.split("_")[0]
    for shard, frames, clips in zip(
        shards, want["shard_num_frames"], want["clips_per_shard"], strict=True
    ):
        assert (len(shard.states), len(shard.tokens)) == (frames, clips)
        key = f"v2_{part}_{shard.index}"
        np.testing.assert_array_equal(shard.tokens[-1], io[f"{key}_last_clip"])
        np.testing.assert_array_equal(
            shard.states[[0, frames // 2, frames - 1]], io[f"{key}_states_rows"]
        )
        np.testing.assert_array_equal(shard.segment_ids, io[f"{key}_segment_idx"])


def test_version_2_becomes_clips_of_one_recording_each(published, tmp_path):
    folder, _, _ = published
    store = import_onex_v2(folder / "val_v2.0", tmp_path / "store")
    drives, (_, shards) = drives_of(store), read_onex_v2(folder / "val_v2.0")
    assert store.action_names == STATE_NAMES
    assert len(STATE_NAMES) == 25
    held = 0
    for shard in shards:
        for clip in range(len(shard.segment_ids) // 17):
            ids = shard.segment_ids[17 * clip : 17 * clip + 17]
            if ids[0] != ids[-1]:
                continue
            drive = store.find(f"val_v2.0-{shard.index:03d}-{ids[0]:06d}")
            first = store.manifest["drives"][drive.id]["meta"]["source_clips"][0]
            np.testing.assert_array_equal(drive.tokens[clip - first], shard.tokens[clip])
            mean = shard.states[17 * clip : 17 * clip + 17].mean(0)
            np.testing.assert_allclose(drive.actions[clip - first], mean, rtol=1e-6)
            held += 1
    assert held == sum(len(drive.tokens) for drive in drives) > 0
    window = collate([TokenWindows(drives, 1)[0]])
    assert window.tokens.shape == (1, 1, 96, 32)  # a step of three grids reads as one


def test_by_command_and_as_data(published, tmp_path, capsys):
    folder, _, _ = published
    main(["onex_v1", str(folder / "val_v1.1"), str(tmp_path / "a")])
    assert "val_v1.1-000003" in capsys.readouterr().out
    for format, name in (("onex_v1", "val_v1.1"), ("onex_v2", "val_v2.0")):
        source = TokenSource(str(folder / name), format, str(tmp_path / "cache"))
        spec, names, captioned = source.planned()
        store = source.open()
        assert (store.spec, store.action_names, store.captioned) == (spec, names, captioned)
        assert source.open().root == store.root
    with pytest.raises(BadInput, match=r"data.format='onex': choose one of store, commavq"):
        TokenSource(str(folder), "onex")


def test_sets_beside_each_other_are_splits(published, tmp_path):
    folder, _, _ = published
    root = tmp_path / "data"
    copied(folder / "val_v1.1", root / "val_v1.1")
    copied(folder / "val_v1.1", root / "train_v1.1")
    store = import_onex_v1(root, tmp_path / "store")
    assert {drive.id: drive.split for drive in drives_of(store)}["train_v1.1-000000"] == "train"
    assert len(store.drives("val")) == len(store.drives("train")) == 4
    (root / "train_v1.1/actions/neck_desired.bin").unlink()
    with pytest.raises(BadInput, match=r"val_v1\.1: differs from .*train_v1\.1 in"):
        import_onex_v1(root, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def put(file: Path, dtype: str, place: int, value: float) -> None:
    array = np.fromfile(file, dtype)
    array[place] = value
    array.tofile(file)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: shorten(f / "video.bin"), r"video\.bin: has 26877 bytes, but uint32 of shape"),
        (lambda f: shorten(f / "segment_ids.bin"), r"segment_ids\.bin: has 1677 bytes"),
        (lambda f: shorten(f / "actions/joint_pos.bin"), r"joint_pos\.bin: has 35277 bytes, no"),
        (lambda f: (f / "actions/joint_pos.bin").write_bytes(b""), r"joint_pos\.bin: has 0 bytes"),
        (lambda f: (f / "metadata.json").unlink(), r"metadata\.json: cannot be read"),
        (lambda f: (f / "metadata.json").write_text("[]"), r"metadata\.json: holds no settings"),
        (lambda f: change(f / "metadata.json", num_images=0), "num_images=0"),
        (lambda f: change(f / "metadata.json", num_images=421), r"video\.bin: has 26880 bytes"),
        (lambda f: change(f / "metadata.json", token_dtype="object"), "token_dtype='object'"),
        (lambda f: change(f / "metadata.json", vocab_size=9), r"video\.bin: step \d+ holds token"),
        (
            lambda f: put(f / "actions/joint_pos.bin", "<f4", 50, np.nan),
            r"joint_pos\.bin: row 2 is not finite",
        ),
        (
            lambda f: put(f / "segment_ids.bin", "<i4", -1, 0),
            r"segment_ids\.bin: segment 0 returns at frame 419",
        ),
        (lambda f: (f / "video.bin").unlink(), r"holds no video\.bin; give"),
    ],
)
def test_a_damaged_set_of_version_1_is_named(published, tmp_path, harm, message):
    folder = copied(published[0] / "val_v1.1", tmp_path / "val_v1.1")
    harm(folder)
    with pytest.raises(BadInput, match=message):
        import_onex_v1(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: shorten(f / "video_1.bin"), r"video_1\.bin: has 49149 bytes, but int32 of"),
        (lambda f: shorten(f / "states_0.bin"), r"states_0\.bin: has 3997 bytes"),
        (lambda f: (f / "segment_idx_1.bin").unlink(), r"segment_idx_1\.bin: cannot be read"),
        (lambda f: (f / "metadata_1.json").unlink(), r"metadata_1\.json"),
        (lambda f: change(f / "metadata.json", num_shards=3), r"video_2\.bin: cannot be read"),
        (lambda f: change(f / "metadata.json", num_images=94), "num_images=94, but its 2 shards"),
        (lambda f: change(f / "metadata_1.json", shard_ind=0), "shard_ind=0, but its name says 1"),
        (lambda f: change(f / "metadata_0.json", shard_num_frames=41), r"states_0\.bin: has 4000"),
        (lambda f: put(f / "video_0.bin", "<i4", 7, 64_000), "step 0 holds token 64000"),
        (lambda f: put(f / "video_0.bin", "<i4", 7, -1), "step 0 holds token -1"),
        (lambda f: put(f / "states_0.bin", "<f4", 26, np.inf), r"states_0\.bin: row 1 is not"),
        (lambda f: put(f / "segment_idx_0.bin", "<i4", -1, 0), "segment 0 returns at frame 39"),
    ],
)
def test_a_damaged_set_of_version_2_is_named(published, tmp_path, harm, message):
    folder = copied(published[0] / "val_v2.0", tmp_path / "val_v2.0")
    harm(folder)
    with pytest.raises(BadInput, match=message):
        import_onex_v2(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists()
