"""OpenDV-YouTube: what lies here of a list becomes drives without actions, with its texts."""

import json
from pathlib import Path
from typing import Any

import pytest
from numbered_frames import numbers_of as shown
from opendv_files import LIST, opendv

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.formats import RECORDING_FORMATS, recognised
from drives.importers.recording import Recording
from training.errors import BadInput

SHEET = (
    "ID,VideoID,Youtuber,Train / Val,Mini / Full set,"
    "Discarded length at the begininning (second)\n0,abcDEF_1-23,J Utah,Train,Mini,1\n"
)


def numbers_of(recording: Recording) -> list[int]:
    return shown(recording.read(0, len(recording.actions)))


def read(root: Path, **options: str) -> list[Recording]:
    return RECORDING_FORMATS["opendv"].recordings(root, **options)


def test_videos_and_frames_of_the_list_are_read(tmp_path: Path) -> None:
    root = opendv(tmp_path)
    assert recognised(root) == "opendv"
    whole, frames = read(root)
    assert (whole.id, frames.id) == ("J_Utah-abcDEF_1-23", "Rambles-zzz")
    assert (whole.split, frames.split) == ("train", "val")
    # Seconds 1 to 4 of six, every third frame.
    assert numbers_of(whole) == list(range(30, 120, 3))
    assert numbers_of(frames) == list(range(30))
    assert whole.fps == frames.fps == 10
    assert whole.action_names == ()
    assert whole.meta["captions"] == [
        {"text": "Go straight. a road in a city", "start": 0, "stop": 10},
        {"text": "Turn left.", "start": 10, "stop": 20},
    ]
    assert frames.meta["captions"] == [{"text": "Stop. a car at a light", "start": 5, "stop": 25}]


def test_which_texts_are_taken_is_a_choice(tmp_path: Path) -> None:
    root = opendv(tmp_path)
    texts = {
        which: [c["text"] for r in read(root, captions=which) for c in r.meta.get("captions", [])]
        for which in ("commands", "contexts", "none")
    }
    assert texts == {
        "commands": ["Go straight.", "Turn left.", "Stop."],
        "contexts": ["a road in a city", "a car at a light"],
        "none": [],
    }
    assert [r.id for r in read(root, subset="mini")] == ["J_Utah-abcDEF_1-23"]


def test_the_command_writes_drives_in_the_splits_of_the_list(tmp_path: Path) -> None:
    root = opendv(tmp_path / "OpenDV")
    main(["opendv", str(root), str(tmp_path / "out"), "--num-workers", "0"])
    paths = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in paths] == ["J_Utah-abcDEF_1-23-train", "Rambles-zzz-val"]
    assert open_drive(paths[1]).captions[0].text == "Stop. a car at a light"


def test_the_sheet_is_a_list_too(tmp_path: Path) -> None:
    root = opendv(tmp_path)
    (root / "meta/OpenDV-YouTube.json").unlink()
    (root / "meta/OpenDV-YouTube.csv").write_text(SHEET)
    (only,) = read(root)
    assert numbers_of(only) == [*range(30, 180, 3)]  # no column for the end


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videoid": "gone"}, "lists 1 videos, and none lies"),
        ({"videoid": "../../etc/x"}, "no name of a file"),
        ({"end_discard": "soon"}, "end_discard is 'soon'"),
        ({"end_discard": 100}, "nothing is left"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    root = opendv(tmp_path)
    (root / "meta/OpenDV-YouTube.json").write_text(json.dumps([LIST[0] | changes]))
    with pytest.raises(BadInput, match=message):
        read(root)
    (root / "meta/OpenDV-YouTube.json").write_text("[{]")
    with pytest.raises(BadInput, match=r"OpenDV-YouTube\.json: truncated"):
        read(root)
