"""Data is known by its content: a copy is the same, a changed byte is not, and hashes are kept."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drives import content
from drives.content import Hashes
from drives.folder import open_drives
from drives.sources import DriveSource, drive_digests, drives_hash
from drives.writing import write_drive
from training.disk.records import read_record
from training.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, split in (("a", "train"), ("b", "test")):
        frames = rng.integers(0, 256, (12, 24, 40, 3), np.uint8)
        meta = {"fps": 10, "split": split}
        write_drive(tmp_path / "drives" / name, frames, rng.random((12, 1)), ["steering"], meta)
    return tmp_path / "drives"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of files that were written just now are kept, as those of older ones."""
    monkeypatch.setattr(content, "TICK_S", -1.0)


def flip(path: Path, place: float = 0.5) -> None:
    """One bit; size and date of the content stay."""
    time.sleep(0.02)  # a tick of the file system's clock
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def identity(root: Path) -> str:
    return drives_hash(open_drives(root))


def test_a_copy_is_the_same_data_and_another_name_or_split_is_not(root: Path) -> None:
    before = identity(root)
    shutil.copytree(root, root.parent / "copy", copy_function=shutil.copy)  # other dates
    assert identity(root.parent / "copy") == before
    (root / "b").rename(root / "c")
    assert identity(root) != before
    (root / "c").rename(root / "b")
    meta = json.loads((root / "b/drive.json").read_text())
    (root / "b/drive.json").write_text(json.dumps(meta))  # in other lines: the same
    assert identity(root) == before
    (root / "b/drive.json").write_text(json.dumps({**meta, "split": "val"}))
    assert identity(root) != before


@pytest.mark.usefixtures("settled")
def test_a_flipped_bit_under_the_same_date_is_seen(root: Path) -> None:
    before = drive_digests(open_drives(root))
    flip(root / "a/video.mp4")
    after = drive_digests(open_drives(root))
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    with pytest.raises(BadInput, match=r"a/video\.mp4: altered since it was written"):
        open_drives(root)[0].frames()
    flip(root / "a/video.mp4")
    assert drive_digests(open_drives(root)) == before


def test_a_flipped_bit_in_actions_is_seen_wherever_it_is(root: Path) -> None:
    size = (root / "a/actions.csv").stat().st_size
    for place in np.linspace(0, 1, 20, endpoint=False):
        flip(root / "a/actions.csv", place)
        with pytest.raises(BadInput, match=r"actions\.csv"):
            open_drives(root)
        flip(root / "a/actions.csv", place)
    assert (root / "a/actions.csv").stat().st_size == size
    assert len(open_drives(root)) == 2


@pytest.mark.usefixtures("settled")
def test_files_are_read_once_and_then_known_to_every_process(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drives = DriveSource(str(root), cache=str(root.parent / "cache")).open()
    kept = read_record(root / content.NAME)["hashes"]
    assert {name: kept[name][1] for name in kept} == {d.id: d.pixels_sha256 for d in drives}
    assert not (root.parent / "cache").exists()

    def fail(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(content, "file_sha256", fail)
    source = root / "a/video.mp4"
    assert Hashes(root).of("a", source) == drives[0].pixels_sha256  # as another process has it
    flip(root / content.NAME)  # a damaged record is none
    with pytest.raises(AssertionError, match=r"a/video\.mp4 is read again"):
        Hashes(root).of("a", source)


def test_the_hash_of_a_file_that_may_still_change_within_a_tick_is_not_kept(root: Path) -> None:
    hashes = Hashes(root)
    hashes.of_all({d.id: d.source for d in open_drives(root)}, "drives")
    assert not (root / content.NAME).exists()
    assert hashes._known == {}


@pytest.mark.usefixtures("settled")
def test_images_of_a_drive_that_nobody_recorded_are_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "drives/mine"
    (folder / "frames").mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(folder / f"frames/{index:03d}.png")
    (folder / "drive.json").write_text('{"fps": 10, "split": "train"}')
    before = identity(tmp_path / "drives")
    shutil.copytree(folder.parent, tmp_path / "copy", copy_function=shutil.copy)
    assert identity(tmp_path / "copy") == before
    Image.new("RGB", (16, 16), (1, 0, 0)).save(folder / "frames/002.png")
    changed = identity(tmp_path / "drives")
    assert changed != before
    (folder / "frames/002.png").rename(folder / "frames/009.png")  # another order
    assert identity(tmp_path / "drives") not in (before, changed)


@pytest.mark.usefixtures("settled")
def test_a_folder_that_cannot_be_written_keeps_its_hashes_in_the_cache(root: Path) -> None:
    bind = subprocess.run(["mount", "--bind", root, root], capture_output=True, check=False)
    if bind.returncode:
        pytest.skip("only root can mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
        cache = root.parent / "cache"
        drives = DriveSource(str(root), cache=str(cache)).open()
        assert not (root / content.NAME).exists()
        (kept,) = cache.glob(f"content/*/{content.NAME}")
        found = read_record(kept)["hashes"]
        assert {name: found[name][1] for name in found} == {d.id: d.pixels_sha256 for d in drives}
        other = Hashes(root)
        other.keep_in(cache)
        assert other._known == found
    finally:
        subprocess.run(["umount", root], check=True)
