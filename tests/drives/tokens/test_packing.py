"""Packed stores: the same data in fewer files; damage is named by file, steps and drive."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from drives import content
from drives.tokens import files, manifest
from drives.tokens.catalog import INDEX, write_index
from drives.tokens.packing import write_rows
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.disk.hashing import file_sha256
from training.disk.records import read_record, write_record
from training.errors import BadInput, CorruptSample
from worldmodel.windows import TokenWindows

SPEC = TokenSpec((1, 3, 4), 40, 10, 1, (24, 32), "test")
STEPS = 6
NAMES = ["speed_mps"]


def write(root: Path, ids: list[str]) -> None:
    writer = TokenStoreWriter(root, SPEC, NAMES)
    for id in ids:
        rng = np.random.default_rng(int(id))
        tokens, actions = rng.integers(0, 40, (STEPS, 3, 4)), rng.normal(size=(STEPS, 1))
        split = "val" if id.endswith("3") else "train"
        writer.write(id, split, tokens, actions, {"footage": f"{id:>016}", "roads": "seen"})


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine drives in three shards, one beside them."""
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 3)
    write(tmp_path / "packed", [str(i) for i in (5, 3, 8, 1, 9, 0, 2, 7, 4, 6)])
    return tmp_path / "packed"


@pytest.fixture
def large(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, opened as a store of any size is."""
    monkeypatch.setattr("drives.tokens.store.CHECKED_AT_ONCE", 0)
    return packed


def shards(root: Path) -> list[Path]:
    return [
        root / shard["file"] for shard in read_record(root / "manifest.json")["packed"]["shards"]
    ]


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def place_of(root: Path, id: str) -> int:
    """Where the tokens of a drive begin in its shard."""
    entry = TokenStore(root).manifest["drives"][id]
    rows = TokenStore(root).find(id).tokens.tobytes()
    return (root / entry["file"]).read_bytes().index(rows)


def test_a_packed_store_is_the_same_data_in_the_same_order(packed: Path) -> None:
    ours = TokenStore(packed)
    index = read_record(packed / "manifest.json")["packed"]["file"]
    loose = {packed / f"{id}.arrow" for id in "6274"}  # of 2, 7 and 4 until the next packing
    now = {packed / index, *shards(packed), *loose}
    replaced = set(packed.glob("*.arrow")) - now
    assert [path.name[:6] for path in replaced] == ["index-"]
    assert ours.catalog.ids == [drive.id for drive in ours.all] == [str(i) for i in range(10)]
    for drive in ours.all:
        rng = np.random.default_rng(int(drive.id))
        np.testing.assert_array_equal(drive.tokens, rng.integers(0, 40, (STEPS, 3, 4)))
        np.testing.assert_array_equal(drive.actions, rng.normal(size=(STEPS, 1)).astype(np.float32))
        assert not drive.tokens.flags.writeable
        assert drive.roads == "seen"
    assert [drive.id for drive in ours.drives("val")] == ["3"]


def test_packing_changes_no_identity(packed: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 512)
    write(tmp_path / "loose", [str(i) for i in range(10)])
    ours, theirs = TokenStore(packed), TokenStore(tmp_path / "loose")
    assert theirs.manifest["schema_version"] == 2  # as older releases read it
    assert ours.manifest["schema_version"] == 3
    assert (ours.hash, ours.digests()) == (theirs.hash, theirs.digests())
    assert ours.footage() == theirs.footage()
    a, b = (TokenWindows(store.drives("train"), 4) for store in (ours, theirs))
    assert len(a) == len(b)
    assert all(np.array_equal(a[i][0], b[i][0]) for i in range(len(a)))


def test_a_packed_drive_is_not_written_again(packed: Path) -> None:
    writer = TokenStoreWriter(packed, SPEC, NAMES)
    assert all(writer.has(str(i)) for i in range(10))
    assert not writer.has("10")
    before = TokenStore(packed).hash
    write(packed, ["4"])
    assert TokenStore(packed).hash == before


def test_what_an_interrupted_packing_left_is_swept(packed: Path) -> None:
    for name in ("shard-0.arrow", "index-0.arrow", "5.arrow", "of_the_user.arrow"):
        (packed / name).write_bytes(b"half")
    write(packed, ["10", "11"])
    left = {path.name for path in packed.glob("*.arrow")}
    assert left.isdisjoint({"shard-0.arrow", "index-0.arrow", "5.arrow"})
    assert "of_the_user.arrow" in left
    assert len(TokenStore(packed).all) == 12


def test_a_store_that_is_open_stays_whole_while_another_process_packs(tmp_path, monkeypatch):
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 4)
    monkeypatch.setattr("drives.tokens.store.CHECKED_AT_ONCE", 0)
    write(tmp_path, ["0", "1", "2"])
    for ids in (["3", "4"], ["5", "6", "7", "8"]):  # loose files are replaced, then an index
        store = TokenStore(tmp_path)
        write(tmp_path, ids)
        assert not any(drive.damage for drive in store.all)
    assert not (tmp_path / "0.arrow").exists(), "what the packing before replaced is swept"


@pytest.mark.parametrize("opens", [TokenStore, lambda root: TokenStoreWriter(root, SPEC, NAMES)])
def test_a_store_may_be_packed_between_reads_of_manifest_and_index(packed, monkeypatch, opens):
    read = manifest.read_catalog

    def read_late(*args):
        monkeypatch.setattr(manifest, "read_catalog", read)
        write(packed, ["10", "11"])
        return read(*args)

    before = read_record(packed / "manifest.json")["packed"]
    monkeypatch.setattr(manifest, "read_catalog", read_late)
    assert len(opens(packed).manifest["drives"]) == 10
    assert read_record(packed / "manifest.json")["packed"] != before


@pytest.mark.parametrize("harm", [Path.unlink, lambda shard: shard.write_bytes(b"half")])
def test_drives_of_a_lost_shard_are_written_again(packed: Path, monkeypatch, harm) -> None:
    whole = TokenStore(packed).digests()
    harm(shards(packed)[1])
    writer = TokenStoreWriter(packed, SPEC, NAMES)
    lost = [str(i) for i in range(10) if not writer.has(str(i))]
    assert lost == ["0", "1", "9"]
    write(packed, lost[:1])
    writer = TokenStoreWriter(packed, SPEC, NAMES)
    assert [id for id in whole if not writer.has(id)] == lost[1:], "nothing is forgotten"
    with pytest.raises(BadInput, match=r"1\.arrow: missing; encode the drives again"):
        TokenStore(packed)
    write(packed, lost[1:])
    assert TokenStore(packed).digests() == whole
    write(packed, ["10"])
    assert len(TokenStore(packed).all) == 11


def test_a_store_whose_only_shard_is_lost_is_written_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 3)
    write(tmp_path, ["0", "1", "2"])
    for file in tmp_path.glob("[0-9]*.arrow"):
        file.unlink()
    shards(tmp_path)[0].unlink()
    write(tmp_path, ["0", "1"])
    assert len(read_record(tmp_path / "manifest.json")["drives"]) == 3
    write(tmp_path, ["2"])
    assert len(shards(tmp_path)) == 1
    assert not any(drive.damage for drive in TokenStore(tmp_path).all)


def test_a_damaged_loose_drive_is_not_packed(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, ["0", "1"])
    flip(tmp_path / "0.arrow", 700)
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 3)
    write(tmp_path, ["2"])
    assert (tmp_path / "0.arrow").exists()
    assert [drive.id for drive in TokenStore(tmp_path, on_corrupt="skip").all if drive.damage] == [
        "0"
    ]


def test_a_flipped_bit_costs_one_drive_and_names_file_steps_and_cause(packed: Path, capsys) -> None:
    entry = TokenStore(packed).manifest["drives"]["8"]
    flip(packed / entry["file"], place_of(packed, "8"))
    steps = f"steps {entry['first']} to {entry['first'] + STEPS - 1}"
    with pytest.raises(BadInput, match=rf"{entry['file']}, {steps}: altered since"):
        TokenStore(packed)
    store = TokenStore(packed, on_corrupt="skip")
    assert [drive.id for drive in store.all if drive.damage] == ["8"]
    assert "warning: 1 damaged, left out: " in capsys.readouterr().out
    assert not store.find("8").tokens.any()


def test_a_large_store_names_a_flipped_bit_before_the_first_window_of_it(large: Path) -> None:
    flip(
        file := large / TokenStore(large).manifest["drives"]["8"]["file"],
        place_of(large, "8"),
    )
    store = TokenStore(large)  # sizes are right
    windows = TokenWindows(store.drives("train"), STEPS)
    number = [drive.id for drive in windows.drives].index("8")
    assert len(windows[number - 1]) == 2
    with pytest.raises(CorruptSample, match=f"drive 8, .*{file.name}, steps"):
        windows[number]
    with pytest.raises(BadInput, match=file.name):
        _ = store.find("8").actions


@pytest.mark.parametrize("end", [0, 100, -1])
def test_a_partial_download_is_found_at_opening_whatever_the_size(large: Path, end: int) -> None:
    file = shards(large)[0]
    content = file.read_bytes()
    file.write_bytes(content[:end])
    said = f"{file.name}: {len(content[:end])} bytes, the manifest says {len(content)}"
    with pytest.raises(BadInput, match=said):
        TokenStore(large)
    store = TokenStore(large, on_corrupt="skip")
    lost = {drive.id for drive in store.all if drive.damage}
    assert 2 < len(lost) < 9
    file.unlink()
    with pytest.raises(BadInput, match=f"{file.name}: missing"):
        TokenStore(large)


def forged(root: Path, change) -> Path:
    """The first shard with other tokens, under their own hash, as another program would write."""
    manifest = read_record(root / "manifest.json")
    about = manifest["packed"]["shards"][0]
    store = TokenStore(root)
    rows = [d for d in store.all if store.manifest["drives"][d.id]["file"] == about["file"]]
    rows.sort(key=lambda drive: store.manifest["drives"][drive.id]["first"])
    tokens = change(np.concatenate([drive.tokens for drive in rows]).copy())
    actions = np.concatenate([drive.actions for drive in rows])
    write_rows(root / about["file"], SPEC, tokens, actions)
    about["sha256"] = file_sha256(root / about["file"])
    about["size"] = (root / about["file"]).stat().st_size
    write_record(root / "manifest.json", manifest)
    return root / about["file"]


@pytest.mark.parametrize(
    "change", [lambda tokens: tokens.byteswap(), lambda tokens: tokens + np.uint16(40)]
)
def test_tokens_of_another_byte_order_or_range_are_found_at_the_first_window(large, change) -> None:
    file = forged(large, change)
    store = TokenStore(large)
    damaged = next(drive for drive in store.all if drive.damage)
    assert file.name in damaged.damage
    with pytest.raises(BadInput, match=file.name):
        _ = damaged.tokens


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("first", 4000, "which has none such"),
        ("first", -1, "which has none such"),
        ("shard", 7, "which has none such"),
        ("num_steps", 0, "which has none such"),
        ("split", "dev", "split='dev'"),
        ("id", "1", "rows for"),
        ("id", "6", "holds 6, as the manifest does"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(packed: Path, column, value, words) -> None:
    manifest = read_record(packed / "manifest.json")
    with pa.memory_map(str(packed / manifest["packed"]["file"])) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    rows[0][column] = value
    name, digest = write_index(packed, pa.Table.from_pylist(rows, INDEX))
    manifest["packed"] |= {"file": name, "sha256": digest}
    write_record(packed / "manifest.json", manifest)
    with pytest.raises(BadInput, match=words):
        TokenStore(packed)


def test_an_altered_or_missing_index_is_named(packed: Path) -> None:
    index = packed / read_record(packed / "manifest.json")["packed"]["file"]
    flip(index, 300)
    with pytest.raises(BadInput, match=f"{index.name}: truncated or altered"):
        TokenStore(packed)
    index.unlink()
    with pytest.raises(BadInput, match=f"{index.name}: cannot be read"):
        TokenStore(packed)


def test_a_shard_is_read_for_its_hash_once_per_machine(large: Path, monkeypatch) -> None:
    monkeypatch.setattr("drives.content.TICK_S", -1.0)
    read, true = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or true(path))
    content._hashes_of.cache_clear()
    store = TokenStore(large)
    assert not [path for path in read if path.suffix == ".arrow"]  # by opening
    for _ in range(3):
        assert not any(drive.damage for drive in store.all)
        content._hashes_of.cache_clear()  # as another process
        store = TokenStore(large)
    assert sorted(path for path in read if path.suffix == ".arrow") == sorted(shards(large))


def test_a_store_larger_than_memory_reads_the_same(large: Path, monkeypatch) -> None:
    before = [drive.tokens.copy() for drive in TokenStore(large).all]
    monkeypatch.setattr("drives.tokens.files.os.sysconf", lambda name: 0)
    advised = []
    told = files._read_no_more_than_asked
    monkeypatch.setattr(
        files, "_read_no_more_than_asked", lambda *arrays: advised.append(told(*arrays))
    )
    after = TokenStore(large).all
    assert all(np.array_equal(a, drive.tokens) for a, drive in zip(before, after, strict=True))
    assert len(advised) == 4


def test_a_store_is_sent_to_a_process_without_its_content(large: Path) -> None:
    drives = TokenStore(large).drives("train")
    _ = drives[0].tokens
    sent = pickle.dumps(drives)
    assert drives[0].tokens.tobytes() not in sent
    np.testing.assert_array_equal(pickle.loads(sent)[0].tokens, drives[0].tokens)


def test_a_replaced_drive_is_in_memory(packed: Path) -> None:
    drive = TokenStore(packed).find("5")
    thinned = replace(drive, tokens=drive.tokens[::2])
    assert thinned.num_steps == 3
    np.testing.assert_array_equal(thinned.actions, drive.actions)


def test_an_old_manifest_of_many_loose_drives_opens(
    packed: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 512)
    monkeypatch.setattr("drives.tokens.files.MAX_MAPPED", 2)
    write(tmp_path / "old", [str(i) for i in range(5)])
    file = tmp_path / "old" / "manifest.json"
    held = {k: v for k, v in json.loads(file.read_text()).items() if k != "sha256"}
    file.write_text(json.dumps({**held, "schema_version": 1}))
    store = TokenStore(tmp_path / "old")
    for id in ("0", "3", "1", "4", "0"):
        np.testing.assert_array_equal(store.find(id).tokens, TokenStore(packed).find(id).tokens)
