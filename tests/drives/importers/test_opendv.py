"""OpenDV-YouTube: what lies here of a list becomes drives without actions, with its texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drives import video
from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.formats import RECORDING_FORMATS, recognised
from drives.importers.recording import Recording
from training.errors import BadInput

LIST = [
    {
        "id": 0,
        "videoid": "abcDEF_1-23",
        "youtuber": "J Utah",
        "split": "Train",
        "subset": "Mini",
        "start_discard": 1,
        "end_discard": 2,
        "length": 6,
    },
    {
        "id": 1,
        "videoid": "zzz",
        "youtuber": "Rambles",
        "split": "Val",
        "subset": "Full",
        "start_discard": 90,
        "end_discard": 60,
        "length": 900,
    },
    {"id": 2, "videoid": "gone", "youtuber": "Rambles", "split": "Val", "subset": "Full"},
]
SHEET = (
    "ID,VideoID,Youtuber,Train / Val,Mini / Full set,"
    "Discarded length at the begininning (second)\n0,abcDEF_1-23,J Utah,Train,Mini,1\n"
)


def numbered(count: int) -> list[np.ndarray]:
    """Frame i shows the bits of i as eight dark or bright bars, so that no codec blurs them."""
    bits = np.unpackbits(np.arange(count, dtype=np.uint8)[:, None], axis=1)
    bars = np.repeat(bits * 200 + 20, 8, axis=1)
    return [np.tile(row[None, :, None], (32, 1, 3)).astype(np.uint8) for row in bars]


def numbers_of(recording: Recording) -> list[int]:
    read = recording.read(0, len(recording.actions))
    frames = np.stack([frame.mean(axis=(0, 2)) for frame in read])
    return np.packbits(frames.reshape(len(frames), 8, -1).mean(axis=2) > 120, axis=1)[:, 0].tolist()


def clip(folder: str, first: int, last: int, cmd: int, blip: str) -> dict[str, Any]:
    names = {"first_frame": f"{first:09d}.jpg", "last_frame": f"{last:09d}.jpg"}
    return {"cmd": cmd, "blip": blip, "folder": folder, **names}


def opendv(root: Path) -> Path:
    """One video of 6 s at 30 fps, frames of another, and nothing of the third."""
    (root / "meta").mkdir(parents=True)
    (root / "meta/OpenDV-YouTube.json").write_text(json.dumps(LIST))
    (root / "videos/J_Utah").mkdir(parents=True)
    video.write_video(root / "videos/J_Utah/abcDEF_1-23.mp4", numbered(180), 30)
    frames = root / "val_images/Rambles/zzz"
    frames.mkdir(parents=True)
    for index, frame in enumerate(numbered(30)):
        Image.fromarray(frame).save(frames / f"{index:09d}.jpg", quality=95)
    train = [
        clip("full_images/J_Utah/abcDEF_1-23", 0, 9, 0, "a road in a city"),
        clip("full_images/J_Utah/abcDEF_1-23", 10, 19, 2, ""),
        clip("full_images/Others/else", 0, 9, 0, "not here"),
    ]
    val = [clip("val_images/Rambles/zzz", 5, 24, 12, "a car at a light")]
    (root / "10hz_YouTube_train_split0.json").write_text(json.dumps(train))
    (root / "10hz_YouTube_val.json").write_text(json.dumps(val))
    return root


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
