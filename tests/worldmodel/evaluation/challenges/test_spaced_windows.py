"""Windows of 1X's recordings: those of the published files, bit for bit."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from drives.importers.tokens.onex_v1 import read_onex_v1
from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.evaluation.challenges.spaced_windows import SpacedWindows


def drives_of(folder, by_segment: bool) -> dict[str, tuple[int, TokenDrive]]:
    """First frame and drive, by id; the whole set as one drive where segments do not count."""
    raw = read_onex_v1(folder)
    segments = raw.segments() if by_segment else [(0, 0, len(raw.tokens))]
    found = {}
    for number, start, stop in segments:
        none = np.zeros((stop - start, 0), np.float32)
        drive = TokenDrive(f"{number}", "val", raw.tokens[start:stop], none)
        found[drive.id] = (start, drive)
    return found


def test_all_windows_are_those_published(shared):
    folder = shared / "parity" / "onex_data"
    io = load_file(folder / "io.safetensors")
    for said in json.loads((folder / "config.json").read_text())["combos"]:
        drives = drives_of(folder / said["dataset"], said["filter_interrupts"])
        windows = SpacedWindows(
            [drive for _, drive in drives.values()],
            said["window_size"],
            said["stride"],
            said["filter_overlaps"],
        )
        places = [windows.describe(index) for index in range(len(windows))]
        starts = [drives[place["drive"]][0] + place["steps"][0] for place in places]
        np.testing.assert_array_equal(starts, io[f"{said['name']}_starts"], said["name"])
        assert len(windows) == said["num_examples"]
        for place, ids in zip(
            io[f"{said['name']}_picked"], io[f"{said['name']}_input_ids"], strict=False
        ):
            np.testing.assert_array_equal(windows[int(place)][0].ravel(), ids, said["name"])


def test_actions_between_two_steps_are_averaged():
    tokens = np.arange(20).reshape(20, 1, 1)
    actions = np.arange(20, dtype=np.float32)[:, None]
    windows = SpacedWindows([TokenDrive("a", "val", tokens, actions)], 3, every=4)
    got, rows = windows[1]
    assert got.ravel().tolist() == [1, 5, 9]
    assert rows.ravel().tolist() == [2.5, 6.5, 10.5]
    assert windows.describe(1) == {"drive": "a", "steps": [1, 9], "every": 4}
    with pytest.raises(BadInput, match="longer than every drive"):
        SpacedWindows(windows.drives, 6, every=4)
