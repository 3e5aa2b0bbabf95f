"""Records tell when a byte of them has changed."""

import json
import os

import pytest

from training.disk.records import read_json, read_record, write_record
from training.errors import BadInput

VALUES = {"schema_version": 3, "scale": 1.0, "names": ["a", "b"], "files": {"w": "0" * 64}}


def is_old(values):
    return values.get("schema_version") in (1, 2)


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, VALUES)
    return path


def test_what_is_written_is_read_and_nothing_is_left_beside_it(record):
    assert read_record(record) == VALUES
    assert os.listdir(record.parent) == ["record.json"]
    write_record(record, {"a": 1})
    assert read_record(record) == {"a": 1}


def test_every_single_bit_flip_is_noticed(record):
    content = record.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        record.write_bytes(flipped)
        with pytest.raises(BadInput, match=r"record\.json"):
            read_record(record, is_old)


@pytest.mark.parametrize("change", ["cut", "append", "older", "unsealed", "moved", "empty"])
def test_other_damage_is_noticed(record, change):
    content = record.read_bytes()
    lines = content.decode().splitlines(keepends=True)
    damaged = {
        "cut": content[: len(content) // 2],
        "append": content + b" ",
        "older": content.replace(b'"schema_version": 3', b'"schema_version": 2'),
        "unsealed": "".join(lines[:1] + lines[2:]).encode(),
        "moved": json.dumps(dict(reversed(json.loads(content).items()))).encode(),
        "empty": b"",
    }
    record.write_bytes(damaged[change])
    with pytest.raises(BadInput, match="altered"):
        read_record(record, is_old)


def test_a_record_of_before_is_read_by_an_explicit_rule(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema_version": 2, "scale": 1.0}))
    assert read_record(path, is_old)["scale"] == 1.0
    with pytest.raises(BadInput, match="seal"):
        read_record(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"{",
    ],
)
def test_no_json_ends_in_one_message(tmp_path, content):
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    for read in (read_json, lambda p: read_record(p, lambda values: True)):
        with pytest.raises(BadInput, match=r"foreign\.json"):
            read(path)


def test_a_folder_in_its_place_or_nothing_there_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(BadInput, match="cannot be read"):
            read_record(path)


def test_a_list_is_no_record(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(BadInput, match="JSON object"):
        read_record(tmp_path / "a.json", lambda values: True)


def test_nan_is_refused_before_anything_is_written(record):
    with pytest.raises(BadInput, match="JSON cannot hold"):
        write_record(record, {"scale": float("nan")})
    assert read_record(record) == VALUES
