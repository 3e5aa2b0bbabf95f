"""Which store drives have: what decides its content decides, and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from drives.folder import open_drives
from drives.sources import DriveSource, dates_hash
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_drives
from tokenizer.load import load_tokenizer
from training.errors import BadInput
from worldmodel.stores import open_store

NAMES = ["steering", "speed_mps"]


def write(path: Path, split: str | None = "train", seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (6, 64, 64, 3), np.uint8)
    write_drive(path, frames, rng.random((6, 2)), NAMES, {"fps": 10, "split": split})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "drives/a")
    return tmp_path / "drives"


def test_another_setting_is_another_store_and_a_copy_of_the_drives_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(root: Path = root, actions: list[str] | None = None, **encode: object) -> Path:
        source = DriveSource(str(root), str(root.parent / "cache"), actions)
        return open_store(source, "carracing", EncodeConfig(num_workers=0, **encode)).root

    first = opened()
    others = [opened(actions=["steering"]), opened(actions=NAMES[::-1]), opened(every=2)]
    others += [opened(dtype="bfloat16"), opened(every=2, phases="all")]
    assert len({first, *others}) == 6
    assert capsys.readouterr().out.count("the drives, actions or encode settings are not") == 5
    monkeypatch.setattr("tokenizer.encode.encode_frames", None)  # nothing may be encoded again
    assert opened() == first
    assert opened(actions=NAMES) == first
    assert opened(actions=["steering"]) == others[0]
    assert opened(batch_size=3, device="cpu") == first
    assert opened(every=2, phases="first") == others[2]
    assert opened(phases="all") == first
    copy = root.parent / "faster"
    shutil.copytree(root, copy, copy_function=shutil.copy)  # under other dates
    assert opened(copy) == first


def test_a_store_of_the_release_before_is_found_by_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drives, tokenizer = open_drives(root), load_tokenizer("carracing").known_as[0][:8]
    cache = root.parent / "cache"
    old = cache / f"tokens/drives-{tokenizer}-{dates_hash(drives)[:8]}-1"
    encode_drives(drives, "carracing", old, NAMES, EncodeConfig(num_workers=0))
    file = old / "manifest.json"
    held = json.loads(file.read_text())
    del held["sha256"], held["drives"]["a"]["meta"]["drive_sha256"]
    file.write_text(json.dumps({**held, "schema_version": 1}))
    monkeypatch.setattr("tokenizer.encode.encode_frames", None)
    source = DriveSource(str(root), str(cache))
    assert open_store(source, "carracing", EncodeConfig(num_workers=0)).root == old


def test_a_store_does_not_keep_what_a_drive_was_before(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"

    def encode() -> None:
        encode_drives(open_drives(root), "carracing", out, NAMES, EncodeConfig(num_workers=0))

    encode()
    shutil.rmtree(root / "a")
    write(root / "a", seed=1)
    with pytest.raises(BadInput, match=r"holds a as it was before .*; nothing is overwritten"):
        encode()


def test_a_store_does_not_keep_the_split_of_before(tmp_path: Path) -> None:
    root, out = tmp_path / "drives", tmp_path / "store"
    for name in "ab":
        write(root / name, None)
    encode_drives(open_drives(root), "carracing", out, NAMES, EncodeConfig(num_workers=0))
    write(root / "c", None)
    with pytest.raises(BadInput, match=r"holds b as .* its split \(test, now val\) changed"):
        encode_drives(open_drives(root), "carracing", out, NAMES, EncodeConfig(num_workers=0))


def test_a_video_with_a_flipped_bit_is_not_encoded(root: Path, tmp_path: Path) -> None:
    file = root / "a/video.mp4"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    source = DriveSource(str(root), str(tmp_path / "cache"))
    with pytest.raises(BadInput, match=r"a/video\.mp4: altered since it was written"):
        open_store(source, "carracing", EncodeConfig(num_workers=0))
