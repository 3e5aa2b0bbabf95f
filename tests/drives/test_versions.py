"""Phases hold each frame once, with its rows, captions and gaps; a mirror changes the sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drives.drive import Drive, open_drive
from drives.splits.pieces import Piece
from drives.versions import recording_of, versions_of
from drives.video.gaps import Drop
from drives.writing import write_drive
from training.errors import BadInput

FRAMES = 20
NAMES = ["speed_mps"]


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    frames = [np.full((16, 16, 3), 10 * i, np.uint8) for i in range(FRAMES)]
    captions = [{"text": "a curve", "start": 7, "stop": 13}]
    meta = {"fps": 10, "split": "train", "captions": captions, "dropped_frames": [[0, 1], [5, 2]]}
    rows = np.arange(FRAMES, dtype=np.float32)[:, None]
    write_drive(tmp_path / "a", frames, rows, NAMES, meta)
    return open_drive(tmp_path / "a")


def grey(drive: Drive, *span: int) -> list[int]:
    """Which recorded frames a drive yields, by their brightness."""
    return [round(frame.mean() / 10) for frame in drive.frames(*span)]


def test_the_phases_hold_each_frame_once(drive: Drive) -> None:
    phases = versions_of([drive], NAMES, 3, "all")
    assert [phase.id for phase in phases] == ["a", "a@1of3", "a@2of3"]
    assert {recording_of(phase.id) for phase in phases} == {"a"}
    shown = [number for phase in phases for number in grey(phase)[::3]]
    assert sorted(shown) == list(range(FRAMES))
    for first, phase in enumerate(phases):
        assert grey(phase, 3, 5) == [first + 3, first + 4]
        assert phase.num_frames == FRAMES - first
        np.testing.assert_array_equal(phase.actions[:, 0], np.arange(first, FRAMES))
        (caption,) = phase.captions
        assert (caption.start, caption.stop) == (7 - first, 13 - first)
        assert phase.drops[-1] == Drop(5 - first, 2)
        assert len(phase.drops) == 1 + (first == 0)  # the gap after frame 0 is before the others


def test_a_phase_is_another_drive_of_the_same_footage(drive: Drive) -> None:
    phases = versions_of([drive], NAMES, 3, "all")
    assert phases[0] is drive
    assert len({phase.digest for phase in phases}) == 3
    assert len({phase.rate_mark for phase in phases}) == 3
    assert {phase.footage.content for phase in phases} == {drive.footage.content}


def test_a_piece_at_another_rate_has_phases_of_its_frames(drive: Drive) -> None:
    piece = drive.piece(Piece("train", 6, 20)).at_fps(5)
    assert grey(piece) == [6, 8, 10, 12, 14, 16, 18]
    phases = versions_of([piece], NAMES, 2, "all")
    assert [phase.id for phase in phases] == ["a@6-20", "a@6-20@1of2"]
    assert grey(phases[1]) == [8, 10, 12, 14, 16, 18]
    assert recording_of(phases[1].id) == recording_of("a@6-20") == "a@6-20"


@pytest.mark.parametrize(
    ("split", "every", "phases"),
    [("val", 3, "all"), ("test", 3, "all"), ("train", 3, "first"), ("train", 1, "all")],
)
def test_all_else_has_its_first_phase_alone(
    drive: Drive, split: str, every: int, phases: str
) -> None:
    same = replace(drive, split=split)
    assert versions_of([same], NAMES, every, phases) == [same]


def test_a_drive_has_no_more_phases_than_frames(drive: Drive) -> None:
    short = drive.piece(Piece("train", 0, 2))
    assert [phase.num_frames for phase in versions_of([short], NAMES, 5, "all")] == [2, 1]


def sided(folder: Path) -> Drive:
    """A drive whose frames are dark on the left, with a column of each kind."""
    half = np.concatenate([np.zeros((16, 8, 3)), np.full((16, 8, 3), 200)], axis=1)
    rows = np.array([[0.5, 7.0], [-0.25, 8.0], [0.0, 9.0]], np.float32)
    frames = [half.astype(np.uint8)] * 3
    write_drive(folder, frames, rows, ["steering", "speed_mps"], {"fps": 10, "split": "train"})
    return open_drive(folder)


def test_a_mirror_changes_the_sides_of_frames_and_actions(tmp_path: Path) -> None:
    drive = sided(tmp_path / "a")
    same, turned = versions_of([drive], drive.action_names, mirrored=True)
    assert same is drive
    assert turned.id == "a@mirrored"
    assert recording_of(turned.id) == "a"
    (frame, *_), (mirror, *_) = drive.frames(), turned.frames()
    np.testing.assert_array_equal(mirror, frame[:, ::-1])
    assert mirror[:, :4].mean() > 150 > 50 > mirror[:, -4:].mean()
    np.testing.assert_array_equal(turned.actions[:, 0], [-0.5, 0.25, 0.0])
    np.testing.assert_array_equal(turned.actions[:, 1], drive.actions[:, 1])
    assert turned.digest != drive.digest
    assert turned.rate_mark != drive.rate_mark
    assert turned.footage.content == drive.footage.content


def test_a_mirror_has_phases_and_leaves_test_drives_alone(tmp_path: Path) -> None:
    drive = sided(tmp_path / "a")
    found = versions_of([drive], drive.action_names, 2, "all", mirrored=True)
    ids = ["a", "a@1of2", "a@mirrored", "a@1of2@mirrored"]
    assert [one.id for one in found] == ids
    assert {recording_of(one.id) for one in found} == {"a"}
    test = replace(drive, split="test")
    assert versions_of([test], drive.action_names, 2, "all", mirrored=True) == [test]


def test_a_column_of_unknown_side_is_refused(tmp_path: Path) -> None:
    drive = sided(tmp_path / "a")
    with pytest.raises(BadInput, match="'winker'"):
        versions_of([drive], ["steering", "winker"], mirrored=True)
