"""Importers: foreign recordings become drives with the right rows, or are refused untouched."""

import csv
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered_frames import numbered, numbers_of
from PIL import Image
from recordings import udacity_folder, video_recording

from drives import video
from drives.drive import open_drive
from drives.folder import open_drives
from drives.importers.base import cover, import_recordings
from drives.importers.recordings import videos
from drives.importers.recordings.steering import udacity
from training.errors import BadInput

MPH = 0.44704


# Udacity simulator


@pytest.mark.parametrize("header", [False, True])
def test_udacity_rows_and_frames_stay_together(tmp_path: Path, header: bool) -> None:
    udacity_folder(tmp_path / "lap", header=header)
    (recording,) = udacity.FORMAT.recordings(tmp_path / "lap")
    assert recording.fps == 10
    paths = import_recordings([recording], tmp_path / "out")
    assert [path.name for path in paths] == ["lap-train", "lap-val", "lap-test"]
    assert [numbers_of(open_drive(path).frames()) for path in paths] == [
        list(range(48)),
        list(range(48, 54)),
        list(range(54, 60)),
    ]
    drive = open_drive(tmp_path / "out/lap-val")
    assert drive.action_names == ("steering", "throttle", "brake", "speed_mps")
    assert (drive.split, drive.meta["source_frames"]) == ("val", [48, 54])
    np.testing.assert_allclose(drive.actions[0], [0.48, 1, 0, 48 * MPH], rtol=1e-6)


def test_udacity_pauses_make_several_recordings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    udacity_folder(tmp_path / "lap", 90, pauses=(40, 45))
    recordings = udacity.FORMAT.recordings(tmp_path)
    assert [(r.id, len(r.actions)) for r in recordings] == [("lap-00", 40), ("lap-01", 45)]
    np.testing.assert_allclose(recordings[1].actions[0, 0], 0.45)
    assert "2 pauses" in caplog.text
    assert "the longest of 5.00 s" in caplog.text
    assert "left out 5 frames" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("center_2016_12_01_23_59_59_100", "frame", "is not named center_YYYY"),
        ("center_2016_12_01_23_59_59_100", "center_2016_12_01_23_59_59_101", "cannot be decoded"),
        (" 0.05,", "left,", "row 5: could not convert string to float: 'left'"),
        (" 0.05,", "1.5,", "row 5, steering is 1.5"),
        (" 0.05,1,", "1,", "row 5 has 6 fields"),
    ],
)
def test_udacity_bad_logs_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    log = udacity_folder(tmp_path) / "driving_log.csv"
    assert old in log.read_text()
    log.write_text(log.read_text().replace(old, new))
    with pytest.raises(BadInput, match=message):
        import_recordings(udacity.FORMAT.recordings(tmp_path), tmp_path / "out")


def test_udacity_other_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no driving_log"):
        udacity.FORMAT.recordings(tmp_path)
    folder = udacity_folder(tmp_path / "lap")
    first = sorted((folder / "IMG").iterdir())[0]
    Image.fromarray(numbered(1, 16, 64)[0]).save(first)
    with pytest.raises(BadInput, match="give frames of one size"):
        udacity.FORMAT.recordings(folder)
    (folder / "driving_log.csv").write_text("")
    with pytest.raises(BadInput, match="holds no rows"):
        udacity.FORMAT.recordings(folder)


def test_udacity_rows_out_of_order_are_named(tmp_path: Path) -> None:
    log = udacity_folder(tmp_path) / "driving_log.csv"
    lines = log.read_text().splitlines()
    lines[7], lines[8] = lines[8], lines[7]
    log.write_text("\n".join(lines))
    with pytest.raises(BadInput, match="time does not move on at row 8"):
        udacity.FORMAT.recordings(tmp_path)


# Folders of videos


def test_columns_become_si(tmp_path: Path) -> None:
    rows = np.arange(60.0)
    video_recording(
        tmp_path,
        speed_mph=rows,
        wheel_deg=rows,
        yaw_rate_deg_s=rows,
        wind_kmh=rows,
        steering=rows / 60,
    )
    (recording,) = videos.FORMAT.recordings(tmp_path)
    names = ("speed_mps", "wheel_rad", "yaw_rate_rad_s", "wind_mps", "steering")
    assert recording.action_names == names
    factors = [MPH, math.pi / 180, math.pi / 180, 1 / 3.6, 1 / 60]
    np.testing.assert_allclose(recording.actions, rows[:, None] * factors)


def test_a_converted_column_must_not_meet_another(tmp_path: Path) -> None:
    video_recording(tmp_path, speed_mph=np.ones(60), speed_mps=np.ones(60))
    with pytest.raises(BadInput, match="twice as 'speed_mps'"):
        videos.FORMAT.recordings(tmp_path)


def test_time_stamps_are_checked_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = np.arange(60) / 10
    video_recording(tmp_path, time_s=time, brake=np.zeros(60))
    assert videos.FORMAT.recordings(tmp_path)[0].action_names == ("brake",)
    assert not caplog.records
    video_recording(tmp_path, time_s=time + 0.3 * (time > 2.05), brake=np.zeros(60))
    assert videos.FORMAT.recordings(tmp_path)[0].action_names == ("brake",)
    assert "1 gaps of more than two frames, the largest of 0.400 s before row 21" in caplog.text
    assert "time_s says 9.52 frames per second, the video 10.00" in caplog.text
    video_recording(tmp_path, time_s=time * 2, brake=np.zeros(60))
    with pytest.raises(BadInput, match=r"time_s says 5\.00 frames per second, the video 10\.00"):
        videos.FORMAT.recordings(tmp_path)
    video_recording(tmp_path, time_s=np.where(time == 2, 1, time), brake=np.zeros(60))
    with pytest.raises(BadInput, match="time_s does not move on at row 20"):
        videos.FORMAT.recordings(tmp_path)


def test_videos_without_tables_or_of_other_lengths_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no videos"):
        videos.FORMAT.recordings(tmp_path)
    video_recording(tmp_path, brake=np.zeros(59))
    with pytest.raises(BadInput, match=r"a\.csv: 59 rows, but a\.mp4 has 60 frames"):
        videos.FORMAT.recordings(tmp_path)
    video_recording(tmp_path, steering=np.full(60, 25.0))
    with pytest.raises(BadInput, match=r"a\.csv: row 0, steering is 25"):
        videos.FORMAT.recordings(tmp_path)
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    with pytest.raises(BadInput, match=r"no a\.csv beside it, but b\.csv, which is of no video"):
        videos.FORMAT.recordings(tmp_path)


def test_a_video_without_a_table_is_frames_alone_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (video_recording(tmp_path / "in", brake=np.zeros(60)) / "a.csv").unlink()
    recordings = videos.FORMAT.recordings(tmp_path / "in")
    assert "no a.csv beside it; it becomes frames alone" in caplog.text
    (path,) = import_recordings(recordings, tmp_path / "out", splits=(1, 0, 0))
    assert open_drive(path).actions.shape == (60, 0)
    assert numbers_of(open_drive(path).frames()) == list(range(60))


# What both share


def test_an_import_goes_on_where_it_stopped_and_overwrites_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source, out = video_recording(tmp_path / "in"), tmp_path / "out"
    recordings = videos.FORMAT.recordings(source)
    first = import_recordings(recordings, out)
    (out / "a-val").rename(tmp_path / "gone")
    stamps = [(out / f"a-{split}/video.mp4").stat().st_mtime_ns for split in ("train", "test")]
    assert import_recordings(recordings, out) == first
    assert "2 of 3 drives are there already and kept" in caplog.text
    assert stamps == [
        (out / f"a-{split}/video.mp4").stat().st_mtime_ns for split in ("train", "test")
    ]
    assert numbers_of(open_drive(out / "a-val").frames()) == list(range(48, 54))
    with pytest.raises(BadInput, match="a-train: exists already and is another drive"):
        import_recordings(recordings, out, size=(16, 16))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_is_written_where_one_recording_is_damaged(
    tmp_path: Path, num_workers: int
) -> None:
    video_recording(tmp_path, "a")
    video_recording(tmp_path, "b")
    data = bytearray((tmp_path / "b.mp4").read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 200] = b"\xff" * 200
    (tmp_path / "b.mp4").write_bytes(data)
    recordings = videos.FORMAT.recordings(tmp_path)
    with pytest.raises(BadInput, match=r"b\.mp4: frame \d+ cannot be decoded"):
        import_recordings(recordings, tmp_path / "out", num_workers=num_workers)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("pool", ["thread", pytest.param("processes", marks=pytest.mark.slow)])
def test_worker_processes_write_the_same(
    pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    if pool == "thread":  # in place of processes, which take seconds to start

        def thread(num_workers: int, initializer: Any, *initargs: Any) -> ThreadPoolExecutor:
            asked.append(num_workers)
            return ThreadPoolExecutor(1, initializer=initializer, initargs=initargs)

        monkeypatch.setattr("drives.importers.base.process_pool", thread)
    recordings = videos.FORMAT.recordings(video_recording(tmp_path))
    alone = import_recordings(recordings, tmp_path / "alone", size=(16, 16))
    assert asked == []
    together = import_recordings(recordings, tmp_path / "together", size=(16, 16), num_workers=2)
    assert asked == ([2, 2] if pool == "thread" else [])  # checking, writing
    for one, other in zip(alone, together, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(
            np.stack(list(open_drive(one).frames())), np.stack(list(open_drive(other).frames()))
        )


def test_splits_follow_the_shares(tmp_path: Path) -> None:
    recordings = videos.FORMAT.recordings(video_recording(tmp_path))
    paths = import_recordings(recordings, tmp_path / "out", splits=(0.5, 0, 0.5))
    assert [(p.name, open_drive(p).num_frames) for p in paths] == [("a-train", 30), ("a-test", 30)]
    for splits in ((0.8, 0.3, 0.1), (1.2, -0.1, -0.1)):
        with pytest.raises(BadInput, match="sum to 1"):
            import_recordings(recordings, tmp_path / "out", splits=splits)
    with pytest.raises(BadInput, match="60 frames leave 1 for val"):
        import_recordings(recordings, tmp_path / "other", splits=(0.5, 0.01, 0.49))


def test_two_recordings_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    video_recording(tmp_path / "one")
    video_recording(tmp_path / "two")
    found = videos.FORMAT.recordings(tmp_path)
    assert [recording.id for recording in found] == ["one-a", "two-a"]
    with pytest.raises(BadInput, match="two recordings are called 'one-a'"):
        import_recordings([found[0], found[0]], tmp_path / "out")


def test_cover_scales_and_cuts_the_centre() -> None:
    frame = np.zeros((40, 100, 3), np.uint8)
    frame[:, 40:60] = 200  # the middle fifth
    small = cover(frame, (10, 10))
    assert small.shape == (10, 10, 3)
    np.testing.assert_allclose(small[5, :, 0], [0, 0, 100, *[200] * 4, 100, 0, 0], atol=2)
    assert small[5, 4, 0] == small[5, 5, 0] == 200
    np.testing.assert_array_equal(small, small[:, ::-1])
    stripes = np.tile(np.array([[0], [255]], np.uint8)[..., None], (20, 100, 3))
    assert np.ptp(cover(stripes, (10, 25))[1:-1].astype(int)) < 20, "not antialiased"


@pytest.mark.slow
def test_a_recorded_drive_is_imported_whole(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/udacity/lake"
    import_recordings(videos.FORMAT.recordings(source), tmp_path, size=(64, 128))
    drives = {drive.id: drive for drive in open_drives(tmp_path)}
    lengths = {name: drive.num_frames for name, drive in drives.items()}
    assert lengths == {"lake-test": 294, "lake-train": 2354, "lake-val": 294}
    for drive in drives.values():
        assert drive.action_names == ("steering", "throttle", "brake", "speed_mps")
    val = drives["lake-val"]
    assert val.check_frames() == (64, 128)
    place = val.meta["source_frames"][0]
    rows = list(csv.DictReader((source / "actions.csv").open()))
    speed = val.select_actions(["speed_mps"])[3, 0]
    assert speed == pytest.approx(float(rows[place + 3]["speed_mph"]) * MPH)
    (original,) = video.read_frames(source / "video.mp4", place + 3, place + 4)
    (stored,) = val.frames(3, 4)
    assert np.abs(cover(original, (64, 128)).astype(float) - stored).mean() < 5
