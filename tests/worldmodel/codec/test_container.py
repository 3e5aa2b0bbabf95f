"""The container: what is written comes back, and every damage is named."""

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from codec_files import SPEC

from training.errors import BadInput
from worldmodel.codec.container import (
    SEGMENT,
    CodedSegment,
    ContainerWriter,
    Header,
    SegmentAbout,
)
from worldmodel.codec.reading import examine, read_header, segments_of
from worldmodel.codec.tokens import spec_of

HEADER = Header(
    schema=1,
    source={"kind": "store"},
    spec={"grid": [1, 2, 3]},
    action_names=("speed_mps",),
    predictors=({"name": "unigram"},),
    arithmetic="exact 1",
    segment_steps=4,
    parallel=2,
    coder="test",
)


def segment(number: int) -> CodedSegment:
    generator = random.Random(number)
    about = SegmentAbout(
        drive="a", split="test", first=4 * number, steps=4, tokens=f"{number}", bits=1.5
    )
    return CodedSegment(about, generator.randbytes(40), generator.randbytes(5))


def write(path: Path, count: int = 5, header: Header = HEADER) -> list[int]:
    """Where each record ends: the header, the segments, the end."""
    with path.open("wb") as file:
        writer = ContainerWriter(file, header)
        ends = [file.tell()]
        for number in range(count):
            writer.add(segment(number))
            ends.append(file.tell())
        writer.end()
        return [*ends, file.tell()]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "c"
    ends = write(path)
    assert read_header(path) == (HEADER, ends[0])
    found = examine(path)
    assert found.damage == ()
    assert list(found.ends.values()) == ends[1:6]
    assert (found.code_bytes, found.action_bytes) == (200, 25)
    assert dict(segments_of(path)) == {number: segment(number) for number in range(5)}


def test_every_truncation_keeps_the_whole_segments(tmp_path: Path) -> None:
    path = tmp_path / "c"
    ends = write(path)
    content = path.read_bytes()
    for stop in range(ends[0], ends[-1], 3):
        path.write_bytes(content[:stop])
        found = examine(path)
        whole = sum(end <= stop for end in ends[1:6])
        assert list(found.segments) == list(range(whole))
        assert "truncated" in found.damage[-1]
        assert not whole or segment(whole - 1).about.name in found.damage[-1]


def test_a_flipped_byte_loses_its_segment_alone(tmp_path: Path) -> None:
    path = tmp_path / "c"
    ends = write(path)
    content = bytearray(path.read_bytes())
    for place in range(ends[0], ends[-1], 3):
        content[place] ^= 0x41
        path.write_bytes(content)
        content[place] ^= 0x41
        found = examine(path)
        hit = sum(end <= place for end in ends) - 1
        assert set(range(5)) - set(found.segments) == ({hit} if hit < 5 else set())
        assert found.damage
        assert str(hit) in found.damage[0] or hit == 5


def test_a_damaged_header_ends_all(tmp_path: Path) -> None:
    path = tmp_path / "c"
    stop = write(path)[0]
    content = bytearray(path.read_bytes())
    for place in range(stop):
        content[place] ^= 1
        path.write_bytes(content)
        content[place] ^= 1
        with pytest.raises(BadInput, match=str(path)):
            read_header(path)


def test_segments_of_another_file_or_place_are_no_segments(tmp_path: Path) -> None:
    path, other = tmp_path / "c", tmp_path / "d"
    ends = write(path)
    write(other, header=replace(HEADER, parallel=3))
    content, foreign = path.read_bytes(), other.read_bytes()
    swapped = content[: ends[0]] + content[ends[1] : ends[2]] + content[ends[0] : ends[1]]
    for wrong in (content[: ends[0]] + foreign[ends[0] :], swapped + content[ends[2] :]):
        path.write_bytes(wrong)
        found = examine(path)
        assert found.damage
        assert all(found.segments[n] == segment(n).about for n in found.segments)
    assert set(found.segments) == {1, 2, 3, 4}


def test_a_segment_that_was_cut_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c"
    ends = write(path)
    content = path.read_bytes()
    path.write_bytes(content[: ends[2]] + content[ends[4] :])
    found = examine(path)
    assert list(found.segments) == [0, 1, 4]
    assert "segments 2 to 3" in found.damage[0]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, header=replace(HEADER, schema=2))
    with pytest.raises(BadInput, match=r"schema 2, of a newer release"):
        examine(path)


def test_other_files_are_no_containers(tmp_path: Path) -> None:
    path = tmp_path / "c"
    for content in (b"", b"dashcast", b"\x93NUMPY" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="no container"):
            examine(path)
    with pytest.raises(BadInput, match="cannot be read"):
        examine(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"grid": [1, 2]}, "spec"),
        ({"vocab_size": "x"}, "vocab_size"),
        ({"grid": [1, 2**16, 2**16]}, "no model predicts so much"),
        ({"preprocessing": {"mean": [[1], 2, 3]}}, "preprocessing"),
    ],
)
def test_a_header_with_a_right_digest_and_no_spec_is_refused(spec: Any, says: str) -> None:
    good = asdict(SPEC)
    assert spec_of(replace(HEADER, spec=good)) == SPEC
    with pytest.raises(BadInput, match=says):
        spec_of(replace(HEADER, spec=good | spec))


def test_a_record_with_a_right_digest_and_no_content_is_refused(tmp_path: Path) -> None:
    with (path := tmp_path / "c").open("wb") as file:
        writer = ContainerWriter(file, HEADER)
        writer._record(SEGMENT, b"{", b"", b"")
    with pytest.raises(BadInput, match="a record is no JSON object"):
        examine(path)
    with pytest.raises(BadInput, match="steps="):
        replace(segment(0).about, steps=10**30)
