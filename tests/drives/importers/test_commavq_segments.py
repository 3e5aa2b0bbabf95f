"""commaVQ's tars and pairs: every segment whole, in its split, its poses before its frames."""

import gzip
import io
import pickle
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commavq_files import make_segments, packed, write_tar

from drives.importers.tokens.commavq import POSE_NAMES, import_commavq, whole_drives
from drives.importers.tokens.formats import recognised_format
from drives.sources import TokenSource
from drives.splits.base import default_split
from drives.tokens.store import TokenStore
from training.errors import BadInput


def drives_of(store):
    found = {}
    for split in ("train", "val", "test"):
        found |= {drive.id: drive for drive in store.drives(split)}
    return found


def write_pairs(folder, segments):
    folder.mkdir()
    for key, arrays in segments.items():
        for name, array in arrays.items():
            np.save(folder / f"{key}.{name}", array)
    return folder


def two_tars(folder):
    folder.mkdir()
    segments = make_segments(12)
    halves = list(segments.items())
    write_tar(folder / "data-0000.tar.gz", dict(halves[:7]))
    write_tar(folder / "data-0001.tar", dict(halves[7:]), folder="train/")
    return folder


def test_tars_become_drives_with_the_pose_before_its_frame(tmp_path: Path) -> None:
    segments = make_segments(12)
    store = import_commavq(two_tars(tmp_path / "tars"), tmp_path / "out")
    assert store.action_names == POSE_NAMES == tuple(f"pose_{i}" for i in range(6))
    drives = drives_of(store)
    assert sorted(drives) == sorted([*list(segments)[:7], *(f"train_{k}" for k in [*segments][7:])])
    for name, drive in drives.items():
        tokens, poses = segments[name.removeprefix("train_")].values()
        np.testing.assert_array_equal(drive.tokens, tokens)
        # Row t explains frame t + 1, and the recipe puts a pose before its own frame.
        np.testing.assert_array_equal(drive.actions[:-1], poses[1:].astype(np.float32))
        np.testing.assert_array_equal(drive.actions[-1], poses[-1].astype(np.float32))
        assert drive.split == default_split(name, 0, None)
    assert {drive.split for drive in drives.values()} > {"train"}
    source = store.manifest["drives"]["segment-03"]["meta"]["source"]
    assert source.endswith("data-0000.tar.gz: segment-03.token.npy")


def test_pairs_are_the_same_store_and_few_are_split_by_place(tmp_path: Path) -> None:
    segments = make_segments(3)
    tar = write_tar(tmp_path / "data-0000.tgz", segments)
    packed_store = import_commavq(tar, tmp_path / "a")
    pairs = import_commavq(write_pairs(tmp_path / "pairs", segments), tmp_path / "b")
    for store in (packed_store, pairs):
        assert [d.split for d in drives_of(store).values()] == ["train", "val", "test"]
    for name, drive in drives_of(packed_store).items():
        other = drives_of(pairs)[name]
        np.testing.assert_array_equal(drive.tokens, other.tokens)
        np.testing.assert_array_equal(drive.actions, other.actions)


@pytest.mark.parametrize("given", ["folder", "file", "tar"])
def test_one_segment_is_cut_in_time(tmp_path: Path, given: str) -> None:
    segments = make_segments(1)
    folder = write_pairs(tmp_path / "minute", segments)
    tar = write_tar(tmp_path / "one.tar", segments)
    source = {"folder": folder, "file": folder / "segment-00.token.npy", "tar": tar}[given]
    store = import_commavq(source, tmp_path / "out", num_train=16, num_test=6)
    (train,), (test,) = store.drives("train"), store.drives("test")
    assert (train.id, test.id) == ("segment-00-train", "segment-00-test")
    tokens, poses = segments["segment-00"].values()
    np.testing.assert_array_equal(train.tokens, tokens[:16])
    np.testing.assert_array_equal(train.actions, poses[1:17].astype(np.float32))
    np.testing.assert_array_equal(test.tokens, tokens[18:])


def test_without_poses_there_are_no_actions(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "data-0000.tar.gz", make_segments(3, poses=False))
    assert import_commavq(tar, tmp_path / "out").action_names == ()
    source = TokenSource(str(tar), "commavq", str(tmp_path / "cache"))
    assert source.planned()[1] == source.open().action_names == ()


def test_a_complete_store_is_opened_without_the_archives_being_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = two_tars(tmp_path / "tars")
    source = TokenSource(str(folder), "commavq", str(tmp_path / "cache"))
    assert source.planned()[1] == POSE_NAMES
    first = source.open()
    with monkeypatch.context() as patch:
        patch.setattr("drives.importers.tokens.commavq.list_segments", None)  # not called
        assert source.open().hash == first.hash
    write_tar(folder / "data-0001.tar", make_segments(3), folder="more/")
    assert source.open().root != first.root
    write_tar(folder / "data-0001.tar", make_segments(3))
    with pytest.raises(BadInput, match="another segment is called segment-00"):
        source.open()


def test_an_interrupted_import_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = make_segments(12)
    folder, out = tmp_path / "tars", tmp_path / "out"
    folder.mkdir()
    write_tar(folder / "data-0000.tar", segments)

    def interrupted(*args: Any) -> Iterator[Any]:
        yield from islice(whole_drives(*args), 9)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("drives.tokens.writer.ENTERED_AT_ONCE", 4)
        patch.setattr("drives.importers.tokens.commavq.whole_drives", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_commavq(folder, out)
    written = {file: file.stat().st_mtime_ns for file in sorted(out.glob("*.arrow"))}
    assert [file.stem for file in written] == [f"segment-{i:02d}" for i in range(9)]
    assert sorted(TokenStore(out).manifest["drives"]) == [file.stem for file in written]
    assert len(drives_of(import_commavq(folder, out))) == 12
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in written.items())
    segments["segment-02"]["token.npy"][5, 2, 3] ^= 1
    write_tar(folder / "data-0000.tar", segments)
    with pytest.raises(BadInput, match="holds other frames as segment-02"):
        import_commavq(folder, out)


@pytest.mark.parametrize("where", ["member", "boundary", "end"])
@pytest.mark.parametrize("name", ["data-0000.tar", "data-0000.tar.gz"])
def test_truncated_archives_are_named_before_anything_is_written(
    tmp_path: Path, name: str, where: str
) -> None:
    whole = write_tar(tmp_path / "whole.tar", make_segments(3)).read_bytes()
    third = whole.index(b"segment-02.json")
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512  # of the last member
    cut = {"member": third + 5000, "boundary": third, "end": end}[where]
    data = whole[:cut]
    if name.endswith(".gz"):
        data = gzip.compress(whole, 1)
        data = data[: {"member": len(data) // 2, "boundary": 9 * len(data) // 10, "end": -4}[where]]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=rf"{name}: is damaged or incomplete .*; copy it again"):
        import_commavq(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("in_tar", [True, False])
def test_all_segments_are_checked_before_the_first_is_written(in_tar: bool, tmp_path: Path) -> None:
    segments = make_segments(12)
    segments["segment-10"]["token.npy"][3, 2, 1] = 5000
    source = tmp_path / "in.tar" if in_tar else tmp_path / "in"
    (write_tar if in_tar else write_pairs)(source, segments)
    with pytest.raises(BadInput, match=r"segment-10\.token\.npy.*5000"):
        import_commavq(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(name, array):
    segments = make_segments(3)
    segments["segment-01"][name] = array
    return segments


def without(name):
    segments = make_segments(3)
    del segments["segment-01"][name]
    return segments


TOKENS = make_segments(1)["segment-00"]["token.npy"]
POSES = make_segments(1)["segment-00"]["pose.npy"]


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (changed("token.npy", TOKENS + 1024), "segment-01.token.npy: .*outside the vocabulary"),
        (changed("token.npy", TOKENS.astype(float)), "segment-01.token.npy: .*array of integers"),
        (changed("token.npy", TOKENS.reshape(-1, 16, 8)), r"token grid is \(16, 8\)"),
        (changed("pose.npy", POSES[:, :5]), r"of shape \(24, 5\); give 6 real numbers"),
        (changed("pose.npy", POSES[:20]), r"of shape \(20, 6\)"),
        (changed("pose.npy", np.full_like(POSES, np.nan)), "frame 0 is not finite"),
        (changed("pose.npy", POSES.astype(int)), "holds int64"),
        (without("pose.npy"), "segment-01 has no pose.npy and others have one"),
        (without("token.npy"), "segment-01 has no token.npy"),
        ({}, "holds no segment"),
    ],
)
def test_bad_segments_are_named(tmp_path: Path, segments, message: str) -> None:
    tar = write_tar(tmp_path / "data-0000.tar.gz", segments)
    with pytest.raises(BadInput, match=message):
        import_commavq(tar, tmp_path / "out")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", make_segments(3))
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    for data in (packed(bomb), pickle.dumps(bomb)):
        (folder / "segment-01.pose.npy").write_bytes(data)
        with pytest.raises(BadInput, match=r"segment-01\.pose\.npy: is not a NumPy array file"):
            import_commavq(folder, tmp_path / "out")
    assert not (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_keys_cannot_leave_the_store(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "data-0000.tar", make_segments(3), folder="../../")
    import_commavq(tar, tmp_path / "a/b")
    assert len(list((tmp_path / "a/b").glob("*.arrow"))) == 3
    assert not list(tmp_path.glob("*.arrow"))


def test_a_whole_segment_can_be_the_test(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "minute", make_segments(1))
    store = import_commavq(folder, tmp_path / "out", num_train=0, num_test=24)
    (drive,) = store.drives("test")
    assert (drive.id, len(drive.tokens)) == ("segment-00-test", 24)
    assert list(store.manifest["drives"]) == ["segment-00-test"]
    with pytest.raises(BadInput, match="of which only num_train may be 0"):
        import_commavq(folder, tmp_path / "other", num_train=24, num_test=0)


def test_an_archive_of_something_else_is_not_taken_for_commavq(tmp_path: Path) -> None:
    (tmp_path / "tub").mkdir()
    with tarfile.open(tmp_path / "tub" / "tub.tar.gz", "w:gz") as archive:
        content = tarfile.TarInfo("mycar/manifest.json")
        content.size = 2
        archive.addfile(content, io.BytesIO(b"{}"))
    assert recognised_format(tmp_path / "tub") is None
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "data-0000.tar.gz", make_segments(1))
    assert recognised_format(tmp_path / "tars") == "commavq"
