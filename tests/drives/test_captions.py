"""Captions: read and judged in drive.json, carried into the token store, step by step."""

import json

import numpy as np
import pytest

from drives.captions import Caption, captions_at, of_steps, read_captions
from drives.drive import open_drive
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_drives
from training.disk.records import read_record, write_record
from training.errors import BadInput

SUN, TURN = {"text": "It is sunny.", "start": 0, "stop": 5}, {"text": "A turn.", "start": 3}


def write(path, captions, frames=9):
    pixels = np.random.default_rng(0).integers(0, 255, (frames, 64, 64, 3), dtype=np.uint8)
    meta = {"fps": 10, "split": "train", "captions": captions}
    write_drive(path, pixels, np.zeros((frames, 1), np.float32), ["speed_mps"], meta)


def test_what_is_said_at_a_frame_is_all_captions_that_hold_there():
    captions = read_captions([SUN, TURN], 7, "here")
    assert captions == (Caption("It is sunny.", 0, 5), Caption("A turn.", 3, 7))
    assert captions_at(captions, 2, 6) == (
        "It is sunny.",
        "It is sunny. A turn.",
        "It is sunny. A turn.",
        "A turn.",
    )
    assert captions_at(captions[:1], 4, 6) == ("It is sunny.", "")


def test_a_step_is_said_what_its_first_frame_is_said():
    captions = [Caption("a", 0, 5), Caption("b", 5, 8), Caption("c", 5, 6)]
    assert of_steps(captions, 2) == [Caption("a", 0, 3), Caption("b", 3, 4)]
    assert of_steps(captions, 1) == captions


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("sunny", "give a list"),
        (["sunny"], "give text"),
        ([{"text": "sunny", "from": 3}], "give text"),
        ([{"text": " "}], "says nothing"),
        ([{"text": "sunny", "start": 3, "stop": 3}], "of frames 3 to 3"),
        ([{"text": "sunny", "stop": 10}], r"stop <= 9"),
        ([{"text": "sunny", "start": 0.5}], "whole numbers"),
    ],
)
def test_captions_that_make_no_sense_are_refused_when_the_drive_is_opened(
    captions, message, tmp_path
):
    write(tmp_path / "drive", [])
    file = tmp_path / "drive" / "drive.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "captions": captions}))
    with pytest.raises(BadInput, match=f"drive.json: .*{message}"):
        open_drive(tmp_path / "drive")


def test_encoding_takes_captions_along_in_token_steps(tmp_path):
    write(tmp_path / "drive", [SUN, {**TURN, "start": 6}])
    drive = open_drive(tmp_path / "drive")
    config = EncodeConfig(every=2, device="cpu")
    store = encode_drives([drive], "carracing", tmp_path / "store", ["speed_mps"], config)
    assert store.captioned
    assert store.drives("train")[0].captions == (
        Caption("It is sunny.", 0, 3),
        Caption("A turn.", 3, 5),
    )


def test_stores_without_captions_open_and_wrong_ranges_are_named(tmp_path):
    spec = TokenSpec((1, 2, 2), 7, 10.0, 1, (16, 16), "test")
    writer = TokenStoreWriter(tmp_path, spec, [])
    writer.write("d", "train", np.zeros((4, 2, 2), np.uint16), np.zeros((4, 0), np.float32))
    store = TokenStore(tmp_path)
    assert store.drives("train")[0].captions == ()
    assert not store.captioned
    file = tmp_path / "manifest.json"
    manifest = read_record(file)
    manifest["drives"]["d"]["meta"] = {"captions": [{"text": "fog", "start": 2, "stop": 9}]}
    write_record(file, manifest)
    with pytest.raises(BadInput, match=r"manifest.json: d: caption 'fog' is of frames 2 to 9"):
        TokenStore(tmp_path)
