"""Flipped bits: 400 of a store's manifest, 600 of a drive's video, 600 of its actions.

`pytest -m attack tests/attacks/test_store_manifests.py -s` prints the figures.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from drives.folder import open_drives
from drives.sources import drive_digests
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from training.errors import BadInput

pytestmark = pytest.mark.attack
SPEC = TokenSpec((1, 8, 8), 64, 10, 1, (64, 64), "a tokenizer", (8, 8))
COLUMNS = ["steering", "speed_mps"]


def flips(path: Path, count: int, seed: int) -> Iterator[bytes]:
    """The file with one other bit each time; as it was at the end."""
    whole = path.read_bytes()
    bits = np.random.default_rng(seed).choice(8 * len(whole), min(count, 8 * len(whole)), False)
    try:
        for bit in bits:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(data)
            yield bytes(data)
    finally:
        path.write_bytes(whole)


def count(path: Path, number: int, use: Callable[[], object]) -> Counter[str]:
    """How many flips are refused in words, and how many pass."""
    found: Counter[str] = Counter()
    for _ in flips(path, number, seed=0):
        try:
            use()
            found["unnoticed"] += 1
        except BadInput as error:
            found["refused" if path.name in str(error) else "refused, another file named"] += 1
    print(f"\n{path.name}: {number} flipped bits, {dict(found)}")
    return found


def test_bits_of_a_stores_manifest(tmp_path: Path) -> None:
    writer = TokenStoreWriter(tmp_path, SPEC, COLUMNS)
    rng = np.random.default_rng(0)
    for name, split in (("train-0000", "train"), ("train-0001", "train"), ("val-0000", "val")):
        tokens = rng.integers(0, 64, (20, 8, 8))
        actions = rng.random((20, 2)).astype(np.float32)
        writer.write(name, split, tokens, actions, {"source": "there", "licence": "MIT"})
    found = count(tmp_path / "manifest.json", 400, lambda: TokenStore(tmp_path))
    assert found == {"refused": 400}


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Videos that move, as those of a car do."""
    texture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    frames = [np.roll(texture, (i, 2 * i), (0, 1))[:64, :96] for i in range(40)]
    actions = np.stack([np.sin(np.arange(40) / 5), 0.3 * np.arange(40)], 1).astype(np.float32)
    for name in ("a", "b"):
        write_drive(tmp_path / name, frames, actions, COLUMNS, {"fps": 10, "split": "train"})
    return tmp_path


def test_bits_of_a_video_that_is_read(drives: Path) -> None:
    def read() -> None:
        for _ in open_drives(drives)[0].frames(0, 40):
            pass

    assert count(drives / "a/video.mp4", 600, read) == {"refused": 600}


def test_bits_of_a_table_of_actions(drives: Path) -> None:
    found = count(drives / "a/actions.csv", 600, lambda: open_drives(drives))
    assert found == {"refused": 600}


def test_bits_of_a_drive_that_nobody_recorded_make_it_another_drive(drives: Path) -> None:
    file = drives / "a/drive.json"
    file.write_text('{"fps": 10, "split": "train"}')
    before = drive_digests(open_drives(drives))["a"]
    same = 0
    for _ in flips(drives / "a/video.mp4", 600, seed=1):
        try:
            same += drive_digests(open_drives(drives))["a"] == before
        except BadInput:
            continue
    print(f"\nvideo without a record: 600 flipped bits, {same} of the same identity")
    assert same == 0
