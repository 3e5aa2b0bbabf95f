"""Splits by time, route and geofence: no frame of one split is near one of another."""

import json
import sys

import numpy as np
import pytest

from drives.folder import open_drives, open_folders
from drives.sources import DriveSource
from drives.splits.__main__ import main
from drives.splits.base import of_split
from drives.splits.pieces import Piece, read_splits
from drives.splits.rules import by_geofence, by_route, by_time
from drives.splits.tracks import METRES_PER_DEG, Fence, metres, read_fences, track_of
from drives.writing import write_drive
from training.errors import BadInput

FPS, NUM = 10, 100


def make(root, name, **meta):
    """A drive whose frame t is a grey of 2 t, and whose action is t."""
    frames = np.repeat(np.arange(NUM, dtype=np.uint8) * 2, 32 * 32 * 3).reshape(NUM, 32, 32, 3)
    actions = np.arange(NUM, dtype=np.float32)[:, None]
    write_drive(root / name, frames, actions, ["number"], {"fps": FPS, **meta})


def along(south, north, lon=0.0):
    """A track due north: metres of the first and of the last frame."""
    lat = np.linspace(south, north, NUM) / METRES_PER_DEG
    return {"lat_deg": lat.tolist(), "lon_deg": [lon / METRES_PER_DEG] * NUM}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command(*arguments)`: python -m drives.splits on tmp_path/drives."""

    def call(*arguments):
        out = tmp_path / "splits.json"
        monkeypatch.setattr(sys, "argv", ["s", str(tmp_path / "drives"), str(out), *arguments])
        main()
        return out

    return call


def spans(pieces):
    return {name: [(p.split, p.start, p.stop, p.roads) for p in of] for name, of in pieces.items()}


def test_time_leaves_a_gap_between_splits(tmp_path):
    make(tmp_path, "a")
    found = by_time(open_folders(tmp_path), (0.6, 0.2, 0.2), gap_s=1.0)
    assert spans(found) == {"a": [("train", 0, 50, ""), ("val", 60, 70, ""), ("test", 80, 100, "")]}
    without = by_time(open_folders(tmp_path), (0.8, 0.0, 0.2), gap_s=0.0)
    assert spans(without) == {"a": [("train", 0, 80, ""), ("test", 80, 100, "")]}
    with pytest.raises(BadInput, match="--gap-s 5: leaves no frame to val"):
        by_time(open_folders(tmp_path), (0.6, 0.2, 0.2), gap_s=5.0)
    with pytest.raises(BadInput, match="sum to 1"):
        by_time(open_folders(tmp_path), (0.6, 0.2, 0.1), gap_s=5.0)


def test_drives_with_a_time_share_one_clock(tmp_path):
    for name, minute in (("late", 2), ("early", 0), ("middle", 1)):
        make(tmp_path, name, time=f"2026-05-01T12:0{minute}:00+00:00")
    found = by_time(open_folders(tmp_path), (0.5, 0.25, 0.25), gap_s=1.0)
    assert spans(found)["early"] == [("train", 0, 100, "")]
    assert spans(found)["middle"] == [("train", 0, 40, ""), ("val", 50, 100, "")]
    assert spans(found)["late"] == [("val", 0, 15, ""), ("test", 25, 100, "")]
    make(tmp_path, "none")
    with pytest.raises(BadInput, match=r"none/drive\.json: has no time, but others do"):
        by_time(open_folders(tmp_path), (0.5, 0.25, 0.25), gap_s=1.0)
    make(tmp_path / "other", "bad", time="yesterday")
    with pytest.raises(BadInput, match="time is 'yesterday'"):
        by_time(open_folders(tmp_path / "other"), (0.5, 0.25, 0.25), gap_s=1.0)


def test_a_route_is_in_one_split(tmp_path):
    for name, route in (("a", "coast"), ("b", "town"), ("c", "coast"), ("d", "hills")):
        make(tmp_path, name, route=route)
    drives = open_folders(tmp_path)
    found = by_route(drives, val=["town"], test=["coast"])
    assert {name: pieces[0].split for name, pieces in found.items()} == {
        "a": "test",
        "b": "val",
        "c": "test",
        "d": "train",
    }
    assert len({p.split for of in by_route(drives).values() for p in of}) == 3
    with pytest.raises(BadInput, match="route 'sea': no drive took it; there are coast, hills"):
        by_route(drives, val=["sea"])
    make(tmp_path, "e")
    with pytest.raises(BadInput, match=r"e/drive\.json: route is None"):
        by_route(open_folders(tmp_path))


def fence_file(path, south, north, split="test"):
    """A box 200 m wide around the meridian."""
    low, high, side = south / METRES_PER_DEG, north / METRES_PER_DEG, 100 / METRES_PER_DEG
    ring = [[-side, low], [side, low], [side, high], [-side, high], [-side, low]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {"split": split}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def test_no_train_frame_is_near_a_fence(tmp_path):
    root = tmp_path / "drives"
    for name, track in (("a", along(0, 990)), ("b", along(990, 0)), ("far", along(0, 990, 5000))):
        make(root, name, track=track)
    drives = open_folders(root)
    fences = read_fences(fence_file(tmp_path / "fences.json", 605, 805))
    found = by_geofence(drives, fences, margin_m=50)
    # Frame t of `a` is at 10 t metres; the margin is 555 to 855.
    assert spans(found)["a"] == [
        ("train", 0, 56, ""),
        ("test", 61, 81, "unseen"),
        ("train", 86, 100, ""),
    ]
    assert spans(found)["far"] == [("train", 0, 100, "")]
    tracks = {drive.id: track_of(drive) for drive in drives}
    held, train = (
        np.concatenate(
            [tracks[n][p.start : p.stop] for n, of in found.items() for p in of if p.split == split]
        )
        for split in ("test", "train")
    )
    apart = np.linalg.norm(metres(held[:, None] - train, held[:1]), axis=-1)
    assert apart.min() >= 50


def test_other_runs_over_train_roads_are_seen(tmp_path):
    root = tmp_path / "drives"
    for name in "abc":
        make(root, name, track=along(0, 990))
    make(root, "apart", track=along(0, 990, 5000))
    fences = read_fences(fence_file(tmp_path / "fences.json", 605, 805))
    found = by_geofence(open_folders(root), fences, 50, {"test": 0.25, "val": 0.25})
    kinds = {(p.split, p.roads) for of in found.values() for p in of}
    assert ("test", "unseen") in kinds
    assert {kind for kind in kinds if kind[1] == "seen"} <= {("val", "seen"), ("test", "seen")}
    # The road that only `apart` took is held out and seen by nobody, or trained on.
    assert {(p.split, p.roads) for p in found["apart"]} in ({("train", "")}, set())
    seen = [n for n, of in found.items() if any(p.roads == "seen" for p in of)]
    assert all({p.split for p in found[n] if p.roads != "unseen"} <= {"val", "test"} for n in seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lat_deg": [0.0], "lon_deg": [0.0, 1.0]}, "1 latitudes and 2 longitudes for 100 frames"),
        ({"lat_deg": [95.0] * NUM, "lon_deg": [0.0] * NUM}, "-90 to 90"),
        ({"lat_deg": [0.0, 1.0], "lon_deg": [0.0, 1.0], "frame": [5, 100]}, "below 100"),
        ({"lat_deg": ["north"]}, "track"),
    ],
)
def test_impossible_tracks_are_refused(tmp_path, change, message):
    make(tmp_path, "a", track=change)
    with pytest.raises(BadInput, match=message):
        track_of(open_folders(tmp_path)[0])


def test_sparse_fixes_are_joined_by_lines(tmp_path):
    make(tmp_path, "a", track={"lat_deg": [0.0, 1.0], "lon_deg": [2.0, 2.0], "frame": [0, 50]})
    track = track_of(open_folders(tmp_path)[0])
    assert track[25].tolist() == [0.5, 2.0]
    assert track[99].tolist() == [1.0, 2.0]


def test_a_hole_in_a_fence_is_outside():
    outer = np.array([[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]], float)
    fence = Fence("val", (outer, outer / 4 + 1.5))
    assert fence.holds(np.array([[1.0, 1.0], [2.0, 2.0], [5.0, 2.0]])).tolist() == [
        True,
        False,
        False,
    ]
    distance = fence.metres_from(np.array([[1.0, 2.0]]))[0]
    assert distance == pytest.approx(0.5 * METRES_PER_DEG, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no features"),
        ({"features": [{"properties": {"split": "train"}}]}, "properties.split is 'train'"),
        (
            {"features": [{"properties": {"split": "val"}, "geometry": {"type": "Point"}}]},
            "Polygon",
        ),
        (
            {
                "features": [
                    {
                        "properties": {"split": "val"},
                        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
                    }
                ]
            },
            r"coordinates are \[\[\[lon, lat\]",
        ),
    ],
)
def test_other_files_are_no_fences(tmp_path, content, message):
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=message):
        read_fences(tmp_path / "f.json")


def test_pieces_are_drives_of_their_own(tmp_path, command, capsys):
    root = tmp_path / "drives"
    texts = [{"text": "dark"}, {"text": "light", "start": 70, "stop": 90}]
    make(root, "a", captions=texts)
    out = command("--by", "time", "--shares", "0.6", "0.2", "0.2", "--gap-s", "1")
    assert "train             5.0 s" in capsys.readouterr().out
    source = DriveSource(str(root), str(tmp_path), splits=str(out))
    train, val, test = (of_split(source.open(), s, "")[0] for s in ("train", "val", "test"))
    assert [d.id for d in (train, val, test)] == ["a@0-50", "a@60-70", "a@80-100"]
    assert test.actions[:, 0].tolist() == list(range(80, 100))
    greys = [round(float(frame.mean())) for frame in test.frames()]
    np.testing.assert_allclose(greys, np.arange(80, 100) * 2, atol=3)
    assert np.mean(next(iter(test.frames(5, 6)))) == pytest.approx(170, abs=3)
    assert [(c.text, c.start, c.stop) for c in test.captions] == [("dark", 0, 20), ("light", 0, 10)]
    assert test.check_frames() == (32, 32)
    with pytest.raises(BadInput, match="has 10 frames; frame 19 is none"):
        list(val.frames(0, 20))
    assert len({d.digest for d in (train, val, test)}) == 3
    assert train.footage.content.endswith(":0-50")
    assert train.pixels_sha256 == test.pixels_sha256


def test_a_file_of_splits_is_checked(tmp_path):
    make(tmp_path / "drives", "a")
    file = tmp_path / "s.json"

    def opened(drives):
        file.write_text(json.dumps({"drives": drives}))
        return open_drives(tmp_path / "drives", splits=file)

    whole = [{"split": "train", "start": 0, "stop": NUM}]
    (drive,) = opened({"a": whole})
    assert (drive.id, drive.span, drive.split) == ("a", None, "train")
    for drives, message in (
        ({}, "says nothing of drive a"),
        ({"a": [{"split": "train", "start": 0, "stop": NUM + 1}]}, "it has 100"),
        ({"a": [{"split": "dev", "start": 0, "stop": 1}]}, "split='dev'"),
        ({"a": [*whole, {"split": "val", "start": 50, "stop": 60}]}, "overlap"),
        ({"a": [{"split": "val", "start": 5, "stop": 5}]}, "start=5 stop=5"),
        ({"a": [{"split": "val", "start": 5, "stop": 9}]}, "in the train split"),
    ):
        with pytest.raises(BadInput, match=message):
            opened(drives)


def test_roads_are_chosen_by_name(tmp_path):
    make(tmp_path / "drives", "a")
    pieces = [Piece("train", 0, 50), Piece("val", 50, 70, "seen"), Piece("val", 70, 90, "unseen")]
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"drives": {"a": [vars(piece) for piece in pieces]}}))
    assert read_splits(file).drives["a"] == tuple(pieces)
    drives = open_drives(tmp_path / "drives", splits=file)
    assert [d.id for d in of_split(drives, "val", "")] == ["a@50-70", "a@70-90"]
    assert [d.id for d in of_split(drives, "val_unseen", "")] == ["a@70-90"]
    with pytest.raises(BadInput, match="in the test_seen split, but 1 in train, 2 in val"):
        of_split(drives, "test_seen", "")
