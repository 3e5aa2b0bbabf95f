"""Logs with an image per row: Donkey Car, Udacity's simulator and real car, Sully Chen."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered import numbered_frame, numbers_of
from PIL import Image

from drives.drive import open_drive
from drives.importers.base import import_recordings
from drives.importers.formats import recognised
from drives.importers.recording import Recording
from drives.importers.recordings.steering import donkeycar, sully_chen, udacity, udacity_car
from drives.importers.recordings.steering.udacity_log import with_decimal_commas
from drives.video.gaps import Drop
from training.errors import BadInput

SHARED = Path(os.environ.get("DASHCAST_SHARED", Path(__file__).parents[4] / "shared"))


def save(file: Path, number: int) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbered_frame(number, 32, 48)).save(file, quality=95)
    return file.name


def numbers(recording: Recording) -> list[int]:
    return numbers_of(recording.read(0, len(recording.actions)))


# Donkey Car


def test_the_real_tub_needs_its_rate(tmp_path: Path) -> None:
    archive = SHARED / "data/donkeycar/tub.tar.gz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    assert recognised(tmp_path / "tub") == "donkeycar"
    with pytest.raises(BadInput, match=r"records are 3 ms apart, no clock .*--fps"):
        donkeycar.FORMAT.recordings(tmp_path)
    (recording,) = donkeycar.FORMAT.recordings(tmp_path, fps=20.0)
    assert (recording.id, recording.fps, recording.actions.shape) == ("tub", 20, (1000, 3))
    assert next(iter(recording.read(999, 1000))).shape == (120, 160, 3)
    first = json.loads((tmp_path / "tub/catalog_0.catalog").read_text().splitlines()[0])
    expected = [first["user/angle"], first["user/throttle"], 0]
    np.testing.assert_allclose(recording.actions[0], expected)
    with pytest.raises(BadInput, match=r"tar xf tub\.tar\.gz"):
        donkeycar.FORMAT.recordings(archive)


def tub(folder: Path, count: int = 60, deleted: tuple[int, ...] = (), step_ms: int = 50) -> Path:
    """Version 2, in two catalogs; record i has angle i / 100 and throttle (i - 30) / 100."""
    catalogs: list[list[str]] = [[], []]
    for i in range(count):
        name = save(folder / f"images/{i}_cam_image_array_.jpg", i)
        record = {
            **{"_index": i, "_timestamp_ms": 1_600_000_000_000 + i * step_ms, "_session_id": "a"},
            **{"cam/image_array": name, "user/angle": i / 100, "user/throttle": (i - 30) / 100},
        }
        catalogs[i >= 40].append(json.dumps(record))
    for number, lines in enumerate(catalogs):
        (folder / f"catalog_{number}.catalog").write_text("\n".join(lines) + "\n")
    (folder / "._catalog_0.catalog").write_bytes(b"\0\5\x16\7")
    held = {
        **{"paths": ["catalog_0.catalog", "catalog_1.catalog"], "current_index": count},
        "deleted_indexes": list(deleted),
    }
    lines = [["cam/image_array"], ["image_array"], {}, {"created_at": 1.0}, held]
    (folder / "manifest.json").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_deleted_records_stay_a_gap(tmp_path: Path) -> None:
    tub(tmp_path / "car", deleted=(10, 11, 12))
    (recording,) = donkeycar.FORMAT.recordings(tmp_path)
    assert numbers(recording) == [i for i in range(60) if i not in (10, 11, 12)]
    assert (recording.fps, recording.drops) == (20, [Drop(9, 3)])
    assert recording.action_names == ("steering", "throttle", "brake")
    np.testing.assert_allclose(recording.actions[0], [0, 0, 0.3])
    np.testing.assert_allclose(recording.actions[-1], [0.59, 0.29, 0])
    paths = import_recordings([recording], tmp_path / "out", splits=(0.5, 0, 0.5))
    assert [open_drive(path).drops for path in paths] == [[Drop(9, 3)], []]


def change(file: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(
        (folder / file).read_text().replace(old, new, 1)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            change("catalog_1.catalog", '"user/angle": 0.45', '"user/angle": null'),
            "line 5: user/an",
        ),
        (change("catalog_1.catalog", '"user/angle": 0.45', '"user/angle": 2.0'), "steering is 2"),
        (change("catalog_1.catalog", '"user/angle": 0.45, ', ""), "line 5: has no user/angle"),
        (change("catalog_1.catalog", '"user/angle": 0.45', '"user/an'), "line 5 is no JSON"),
        (
            change("catalog_1.catalog", '"_timestamp_ms": 1600000002250, ', ""),
            "line 5: _timestamp_ms is None",
        ),
        (change("catalog_1.catalog", ": 1600000002000", ": NaN"), "row 40: its time is nan"),
        (change("manifest.json", "paths", "path"), r"manifest\.json: names no catalogs"),
        (lambda folder: (folder / "catalog_1.catalog").unlink(), r"catalog_1\.catalog: cannot be"),
        (lambda folder: (folder / "images/7_cam_image_array_.jpg").unlink(), "--on-missing=gap"),
    ],
)
def test_a_damaged_tub_is_named(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    spoil(tub(tmp_path / "car"))
    with pytest.raises(BadInput, match=message):
        donkeycar.FORMAT.recordings(tmp_path)


def test_an_image_path_cannot_leave_the_tub(tmp_path: Path) -> None:
    save(tmp_path / "7_cam_image_array_.jpg", 99)
    folder = tub(tmp_path / "car")
    change("catalog_0.catalog", '"7_cam', '"../../7_cam')(folder)
    (recording,) = donkeycar.FORMAT.recordings(folder)
    assert numbers(recording)[7] == 7


def test_a_tub_of_version_1(tmp_path: Path) -> None:
    for i in range(30):
        name = save(tmp_path / f"{i}_cam-image_array_.jpg", i)
        record = {"cam/image_array": name, "user/angle": i / 100, "user/throttle": 0.5}
        (tmp_path / f"record_{i}.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="no clock; give --fps"):
        donkeycar.FORMAT.recordings(tmp_path)
    (recording,) = donkeycar.FORMAT.recordings(tmp_path, fps=20.0)
    assert numbers(recording) == list(range(30)), "record_9 comes before record_10"


# Udacity's simulator


def udacity_log(folder: Path, rows: list[int], separate: str = ",", header: bool = True) -> Path:
    """Row i is i tenths of a second after noon; every camera has its own number."""
    lines = ["center,left,right,steering,throttle,brake,speed"] if header else []
    for i in rows:
        stamp = f"2017_05_21_12_00_{i // 10:02d}_{i % 10}00"
        names = [
            "IMG\\" + save(folder / f"IMG/{camera}_{stamp}.jpg", i + 64 * shift)
            for shift, camera in enumerate(("center", "left", "right"))
        ]
        lines.append(separate.join([*names, f"{i / 200}", "0.5", "0", "10"]))
    (folder / "driving_log.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(("camera", "shift", "side"), [("left", 64, 1), ("right", 128, -1)])
def test_a_side_camera(camera: Any, shift: int, side: int, tmp_path: Path) -> None:
    udacity_log(tmp_path / "lap", list(range(30)))
    (recording,) = udacity.FORMAT.recordings(tmp_path, camera=camera)
    assert numbers(recording) == [i + shift for i in range(30)]
    assert recording.id == f"lap-{camera}"
    np.testing.assert_allclose(recording.actions[:, 0], np.arange(30) / 200)
    (corrected,) = udacity.FORMAT.recordings(tmp_path, camera=camera, side_correction=0.2)
    np.testing.assert_allclose(corrected.actions[:, 0], np.arange(30) / 200 + side * 0.2)
    with pytest.raises(BadInput, match="side_correction"):
        udacity.FORMAT.recordings(tmp_path, camera=camera, side_correction=20.0)


def test_joined_logs_repeat_their_header(tmp_path: Path) -> None:
    later = udacity_log(tmp_path / "b", list(range(30, 60))) / "driving_log.csv"
    earlier = udacity_log(tmp_path / "a", list(range(25))) / "driving_log.csv"
    both = tmp_path / "both"
    udacity_log(both, list(range(60)))
    (both / "driving_log.csv").write_text(later.read_text() + "\n\n" + earlier.read_text())
    first, second = udacity.FORMAT.recordings(both)
    assert (numbers(first), numbers(second)) == (list(range(30, 60)), list(range(25)))
    (both / "driving_log.csv").write_text(later.read_text() + "\n" + later.read_text())
    with pytest.raises(BadInput, match=r"time does not move on at row 30; .*drop double rows"):
        udacity.FORMAT.recordings(both)


def test_joined_logs_with_images_in_folders_of_their_own(tmp_path: Path) -> None:
    text = ""
    for name, rows in (("one", range(30)), ("two", range(100, 130))):
        log = udacity_log(tmp_path / name, list(rows), header=False) / "driving_log.csv"
        text += log.read_text().replace("IMG\\", f"{name}/IMG/") + "\n"
    (tmp_path / "driving_log.csv").write_text(text)
    found = udacity.FORMAT.recordings(tmp_path)
    assert [numbers(recording) for recording in found] == [[*range(30)], [*range(100, 130)]]


@pytest.mark.parametrize(
    ("torn", "whole"),
    [
        ("0,0,5,0,3", ["0", "0,5", "0", "3"]),
        ("0,1,0,5,3", ["0", "1", "0", "5,3"]),
        ("-0,25,0,5,0,12,1822", ["-0,25", "0,5", "0", "12,1822"]),
        ("0,0,0,12,1822", ["0", "0", "0", "12,1822"]),
        ("0,05,1,0,30,19", ["0,05", "1", "0", "30,19"]),
        ("0,0,0,0,5", ["0", "0", "0", "0,5"]),
    ],
)
def test_decimal_commas_between_commas(torn: str, whole: list[str], tmp_path: Path) -> None:
    assert with_decimal_commas(tmp_path, 0, torn.split(",")) == whole


@pytest.mark.parametrize(("torn", "ways"), [("0,0,0,5,3", 2), ("7,7,7,7,7", 0)])
def test_what_cannot_be_told_apart_is_named(torn: str, ways: int, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"row 3: '{torn}' can be read in {ways} ways.*semicolons"):
        with_decimal_commas(tmp_path, 3, torn.split(","))


# Udacity's real car


def interpolated(folder: Path, count: int = 40) -> Path:
    """Three cameras in turns at 20 Hz; the wheel turns to the left by i / 100 rad."""
    lines = ["index,timestamp,width,height,frame_id,filename,angle,torque,speed,lat,long,alt"]
    for i in range(count):
        for shift, camera in enumerate(("left", "center", "right")):
            stamp = 1479424215880976321 + i * 50_000_000 + shift * 1_000_000
            name = save(folder / camera / f"{stamp}.jpg", i + 64 * shift)
            place = f"{37 + i / 1000},-122,12.5"
            lines.append(
                f"{stamp},{stamp},640,480,{camera}_camera,{camera}/{name},{i / 100},0.5,9,{place}"
            )
    (folder / "interpolated.csv").write_text("\n".join(lines))
    return folder


def test_the_real_car(tmp_path: Path) -> None:
    interpolated(tmp_path / "drive")
    assert recognised(tmp_path) == "udacity_car"
    (recording,) = udacity_car.FORMAT.recordings(tmp_path, lock_deg=450.0)
    assert numbers(recording) == list(range(64, 104))
    assert (recording.fps, recording.drops) == (20, [])
    wheel, turned = np.arange(40) / 100, -np.degrees(np.arange(40) / 100) / 450
    names = ("steering", "steering_wheel_rad", "steering_wheel_torque_nm", "speed_mps")
    assert recording.action_names == names
    expected = np.stack([turned, wheel, np.full(40, 0.5), np.full(40, 9)], axis=1)
    np.testing.assert_allclose(recording.actions, expected)
    assert recording.track is not None
    np.testing.assert_allclose(recording.track[3], [37.003, -122])
    (left,) = udacity_car.FORMAT.recordings(tmp_path, camera="left")
    assert (left.id, numbers(left)) == ("drive-left", list(range(40)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frame_id", "frame", "no column frame_id"),
        ("center_camera", "middle_camera", "has no center_camera, but .*give --camera"),
        (",0.11,", ",fast,", "row 34, column 'angle' is 'fast'"),
    ],
)
def test_a_bad_table_of_the_real_car(old: str, new: str, message: str, tmp_path: Path) -> None:
    table = interpolated(tmp_path, 25) / "interpolated.csv"
    lines = table.read_text().replace(",0.11,", ",0.1,").splitlines()
    lines[35] = lines[35].replace(",0.1,", ",0.11,")  # one row of the centre
    table.write_text("\n".join(lines).replace(old, new))
    with pytest.raises(BadInput, match=message):
        udacity_car.FORMAT.recordings(tmp_path)


# Sully Chen


def sully_folder(folder: Path, dated: bool, count: int = 40) -> Path:
    lines = []
    for i in range(count):
        time = f",2018-07-01 17:09:{44 + i // 30}:{i % 30 * 1000 // 30:03d}" if dated else ""
        lines.append(f"{save(folder / f'{i}.jpg', i)} {i - 10}.5{time}")
    (folder / "data.txt").write_text("\n".join(lines))
    return folder


def test_both_sets_of_sully_chen(tmp_path: Path) -> None:
    sully_folder(tmp_path / "old", dated=False)
    with pytest.raises(BadInput, match=r"row 0 has no time; give --fps \(30 is likely\)"):
        sully_chen.FORMAT.recordings(tmp_path / "old")
    (old,) = sully_chen.FORMAT.recordings(tmp_path / "old", fps=30.0)
    (new,) = sully_chen.FORMAT.recordings(sully_folder(tmp_path / "new", dated=True))
    for recording in (old, new):
        assert numbers(recording) == list(range(40))
        assert recording.fps == pytest.approx(30, rel=0.02)
        assert recording.action_names == ("steering_wheel_rad",)
        right_deg = np.array([float(f"{i - 10}.5") for i in range(40)])
        np.testing.assert_allclose(recording.actions[:, 0], -np.radians(right_deg))
    (steered,) = sully_chen.FORMAT.recordings(tmp_path / "new", lock_deg=100.0)
    np.testing.assert_allclose(steered.actions[:, 0], right_deg / 100)
    table = tmp_path / "new/data.txt"
    whole = table.read_text()
    for angle in ("left", "-5.5.5"):
        table.write_text(whole.replace("5.jpg -5.5", f"5.jpg {angle}"))
        with pytest.raises(BadInput, match=rf"row 5 is '5\.jpg {angle}.*expected N\.jpg angle"):
            sully_chen.FORMAT.recordings(tmp_path / "new")
