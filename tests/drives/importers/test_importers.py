"""Importers: foreign recordings become drives with the right rows, or are refused untouched."""

import argparse
import csv
import logging
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from drives import video
from drives.drive import open_drive
from drives.folder import open_drives
from drives.importers.__main__ import main
from drives.importers.base import cover, import_recordings
from drives.importers.flags import add_flags, options_of
from drives.importers.formats import recognised
from drives.importers.recording import ImportOptions
from drives.importers.recordings import videos
from drives.importers.recordings.steering import udacity
from drives.importers.tokens.commavq import SPEC, import_commavq
from drives.tokens.store import TokenStore
from training.errors import BadInput

MPH = 0.44704


def numbered_frames(num_frames: int, height: int = 32, width: int = 64) -> list[np.ndarray]:
    """Frame i shows the bits of i as eight dark or bright bars, so that no codec blurs them."""
    bits = np.unpackbits(np.arange(num_frames, dtype=np.uint8)[:, None], axis=1)
    bars = np.repeat(bits * 200 + 20, width // 8, axis=1).astype(np.uint8)
    return [np.tile(row[None, :, None], (height, 1, 3)) for row in bars]


def frame_numbers(path: Path) -> list[int]:
    frames = np.stack([frame.mean(axis=(0, 2)) for frame in open_drive(path).frames()])
    bits = frames.reshape(len(frames), 8, -1).mean(axis=2) > 120
    return np.packbits(bits, axis=1)[:, 0].tolist()


def udacity_folder(
    folder: Path, num_frames: int = 60, pauses: tuple[int, ...] = (), header: bool = False
) -> Path:
    """A recording as the simulator writes it; before each frame of `pauses` it stood still."""
    (folder / "IMG").mkdir(parents=True)
    time = datetime(2016, 12, 1, 23, 59, 58, 500_000)
    rows = [["center", "left", "right", "steering", "throttle", "brake", "speed"]] * header
    for index, frame in enumerate(numbered_frames(num_frames)):
        time += timedelta(seconds=5 if index in pauses else 0.1)
        name = f"center_{time:%Y_%m_%d_%H_%M_%S}_{time.microsecond // 1000:03d}.jpg"
        Image.fromarray(frame).save(folder / "IMG" / name)
        camera = "C:\\Users\\me\\IMG\\" if index % 2 else "/home/me/IMG/"
        row = [camera + name, " IMG/left.jpg", " IMG/right.jpg"]
        rows.append([*row, f" {index / 100}", "1", "0", f"{index}"])
    with (folder / "driving_log.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def video_recording(folder: Path, name: str = "a", **columns: np.ndarray) -> Path:
    """`name.mp4` of 60 numbered frames at 10 fps, and `name.csv` with the columns given."""
    folder.mkdir(parents=True, exist_ok=True)
    video.write_video(folder / f"{name}.mp4", numbered_frames(60), 10)
    columns = columns or {"steering": np.linspace(0, 1, 60)}
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drives.importers", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )


# Udacity simulator


@pytest.mark.parametrize("header", [False, True])
def test_udacity_rows_and_frames_stay_together(tmp_path: Path, header: bool) -> None:
    udacity_folder(tmp_path / "lap", header=header)
    (recording,) = udacity.FORMAT.recordings(tmp_path / "lap")
    assert recording.fps == 10
    paths = import_recordings([recording], tmp_path / "out")
    assert [path.name for path in paths] == ["lap-train", "lap-val", "lap-test"]
    assert [frame_numbers(path) for path in paths] == [
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
    Image.fromarray(numbered_frames(1, 16, 64)[0]).save(first)
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
    assert frame_numbers(path) == list(range(60))


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
    assert frame_numbers(out / "a-val") == list(range(48, 54))
    with pytest.raises(BadInput, match="a-train: exists already and is another drive"):
        import_recordings(recordings, out, size=(16, 16))


def test_nothing_is_written_where_one_recording_is_damaged(tmp_path: Path) -> None:
    video_recording(tmp_path, "a")
    video_recording(tmp_path, "b")
    data = bytearray((tmp_path / "b.mp4").read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 200] = b"\xff" * 200
    (tmp_path / "b.mp4").write_bytes(data)
    recordings = videos.FORMAT.recordings(tmp_path)
    for num_workers in (0, 2):
        with pytest.raises(BadInput, match=r"b\.mp4: frame \d+ cannot be decoded"):
            import_recordings(recordings, tmp_path / "out", num_workers=num_workers)
        assert not list((tmp_path / "out").iterdir())


def test_worker_processes_write_the_same(tmp_path: Path) -> None:
    recordings = videos.FORMAT.recordings(video_recording(tmp_path))
    alone = import_recordings(recordings, tmp_path / "alone", size=(16, 16))
    together = import_recordings(recordings, tmp_path / "together", size=(16, 16), num_workers=2)
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


# commaVQ


def comma_tokens(num_frames: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, (num_frames, 8, 16)).astype(np.int16)


def test_commavq_makes_a_store_once(tmp_path: Path) -> None:
    (tmp_path / "minute").mkdir()
    file = tmp_path / "minute/tokens.npy"
    np.save(file, comma_tokens())
    store = import_commavq(tmp_path / "minute", tmp_path / "out", num_train=40, num_test=15)
    assert store.spec == SPEC
    (train,), (test,) = store.drives("train"), store.drives("test")
    assert (train.id, test.id) == ("minute-train", "minute-test")
    np.testing.assert_array_equal(train.tokens, comma_tokens()[:40])
    np.testing.assert_array_equal(test.tokens, comma_tokens()[45:])
    assert train.actions.shape == (40, 0)
    stamp = (tmp_path / "out/minute-train.arrow").stat().st_mtime_ns
    assert import_commavq(file, tmp_path / "out", 40, 15).hash == store.hash
    assert (tmp_path / "out/minute-train.arrow").stat().st_mtime_ns == stamp
    with pytest.raises(BadInput, match="holds other frames as minute-train"):
        import_commavq(file, tmp_path / "out", 30, 15)
    copy = tmp_path / "copy/minute"
    shutil.copytree(file.parent, copy, copy_function=shutil.copy)  # under other dates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drives.importers.tokens.commavq.list_segments", None)  # it is not read again
        assert import_commavq(copy, tmp_path / "out", 40, 15).hash == store.hash
    assert [path.name for path in file.parent.iterdir()] == ["tokens.npy"]
    np.save(tmp_path / "flat.npy", comma_tokens().reshape(60, 128).astype(np.int64))
    flat = import_commavq(tmp_path / "flat.npy", tmp_path / "flat", 40, 15)
    np.testing.assert_array_equal(flat.drives("train")[0].tokens, train.tokens)
    assert flat.drives("train")[0].id == "flat-train"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (comma_tokens() + 1, "holds token 1024, outside the vocabulary 0..1023"),
        (comma_tokens() - 1, "holds token -1"),
        (comma_tokens().astype(np.float32), "holds no array of integers"),
        (comma_tokens().reshape(60, 16, 8), r"token grid is \(16, 8\)"),
        (comma_tokens().reshape(120, 64), r"token grid is \(64,\)"),
        (comma_tokens(20), "fit in"),
    ],
)
def test_commavq_bad_tokens_are_named(tmp_path: Path, tokens: np.ndarray, message: str) -> None:
    np.save(tmp_path / "tokens.npy", tokens)
    with pytest.raises(BadInput, match=message):
        import_commavq(tmp_path, tmp_path / "out", 40, 15)
    assert not (tmp_path / "out").exists()


def test_commavq_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no \*\.tar\.gz, no \*\.token\.npy and no tokens"):
        import_commavq(tmp_path, tmp_path / "out")
    with pytest.raises(BadInput, match="no such file or folder"):
        import_commavq(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "tokens.npy").write_text("tokens")
    with pytest.raises(BadInput, match=r"tokens\.npy: is not a NumPy array"):
        import_commavq(tmp_path, tmp_path / "out")


def test_commavq_reads_the_published_minute(shared: Path, tmp_path: Path) -> None:
    tokens = np.load(shared / "data/commavq/tokens.npy")
    store = import_commavq(shared / "data/commavq", tmp_path)
    np.testing.assert_array_equal(store.drives("train")[0].tokens, tokens[:1000])
    np.testing.assert_array_equal(store.drives("test")[0].tokens, tokens[1000:])
    assert TokenStore(tmp_path).hash == store.hash


# The command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "nan", "0", "1"], "splits"),
        (["--split", "-1", "1", "1"], "splits"),
        (["--size", "0", "8"], "size"),
        (["--size", "1000000000000", "8"], "size"),
        (["--num-workers", "-1"], "num_workers"),
    ],
)
def test_arguments_are_judged_before_any_recording_is_looked_for(options, words, tmp_path, capsys):
    for place, said in ((tmp_path / "out", words), ("", "out=''"), ("/proc/out", "out=/proc/out")):
        with pytest.raises(SystemExit) as end:
            main(["videos", "nowhere", str(place), *options])
        shown = capsys.readouterr().err
        assert end.value.code == 2
        assert shown.startswith(f"error: {said}")
        assert shown.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_command_imports_and_refuses(tmp_path: Path) -> None:
    video_recording(tmp_path / "in")
    options = ("--size", 16, 24, "--split", 0.5, 0.25, 0.25, "--num-workers", 0)
    good = command("videos", tmp_path / "in", tmp_path / "out", *options, "--licence", "CC0")
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines() == [
        str(tmp_path / f"out/a-{split}") for split in ("train", "val", "test")
    ]
    drive = open_drive(tmp_path / "out/a-val")
    assert drive.num_frames == 15
    assert drive.check_frames() == (16, 24)
    assert drive.meta["licence"] == "CC0"
    bad = command("udacity", tmp_path / "in", tmp_path / "out")
    assert bad.returncode == 2
    assert bad.stderr == (
        f"error: {tmp_path / 'in'}: no driving_log.csv there or one folder below; give its folder\n"
    )


def test_the_command_reaches_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    udacity_folder(tmp_path / "lap")
    main(["udacity", str(tmp_path / "lap"), str(tmp_path / "a"), "--num-workers", "0"])
    assert len(open_drives(tmp_path / "a")) == 3
    np.save(tmp_path / "tokens.npy", comma_tokens())
    counts = ["--num-train", "40", "--num-test", "15"]
    main(["commavq", str(tmp_path / "tokens.npy"), str(tmp_path / "b"), *counts])
    assert len(TokenStore(tmp_path / "b").drives("train")[0].tokens) == 40
    with pytest.raises(SystemExit) as error:
        main(["commavq", str(tmp_path / "tokens.npy"), str(tmp_path / "b")])
    assert error.value.code == 2
    assert "fit in" in capsys.readouterr().err


@pytest.mark.slow
def test_recorded_drives_import_whole(shared: Path, tmp_path: Path) -> None:
    folders = [shared / "data/udacity" / name for name in ("lake", "mountain")]
    recordings = [r for folder in folders for r in videos.FORMAT.recordings(folder)]
    import_recordings(recordings, tmp_path, size=(64, 128))
    drives = {drive.id: drive for drive in open_drives(tmp_path)}
    lengths = {name: drive.num_frames for name, drive in drives.items()}
    assert lengths == {
        "lake-test": 294,
        "lake-train": 2354,
        "lake-val": 294,
        "mountain-test": 345,
        "mountain-train": 2762,
        "mountain-val": 346,
    }
    for drive in drives.values():
        assert drive.action_names == ("steering", "throttle", "brake", "speed_mps")
        assert drive.check_frames() == (64, 128)
    place = drives["mountain-val"].meta["source_frames"][0]
    source = shared / "data/udacity/mountain"
    rows = list(csv.DictReader((source / "actions.csv").open()))
    speed = drives["mountain-val"].select_actions(["speed_mps"])[3, 0]
    assert speed == pytest.approx(float(rows[place + 3]["speed_mph"]) * MPH)
    (original,) = video.read_frames(source / "video.mp4", place + 3, place + 4)
    (stored,) = drives["mountain-val"].frames(3, 4)
    assert np.abs(cover(original, (64, 128)).astype(float) - stored).mean() < 5


def test_what_cannot_be_used_is_left_out_and_told(tmp_path: Path) -> None:
    """A table of another length, a cut video and one that is too short; the fourth goes in."""
    for name in "abc":
        video_recording(tmp_path / "src", name)
    (tmp_path / "src/a.csv").write_text("steering\n0\n")
    whole = (tmp_path / "src/b.mp4").read_bytes()
    video.write_video(tmp_path / "src/d.mp4", numbered_frames(4), 10)
    (tmp_path / "src/d.csv").write_text("steering\n" + "0\n" * 4)
    (tmp_path / "src/b.mp4").write_bytes(whole[:2000] + bytes(1500) + whole[3500:])
    stopped = command("videos", tmp_path / "src", tmp_path / "out", "--num-workers", 0)
    assert (stopped.returncode, (tmp_path / "out").exists()) == (2, False)
    arguments = ("videos", tmp_path / "src", tmp_path / "out", "--num-workers", 0)
    skipped = command(*arguments, "--on-bad", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert [Path(line).name for line in skipped.stdout.split()] == ["c-train", "c-val", "c-test"]
    told = [line for line in skipped.stderr.splitlines() if line.startswith("left out: ")]
    assert len(told) == 3
    assert all(any(f"{name}" in line for line in told) for name in ("a.csv", "b.mp4", "d: its 4"))


def test_flags_are_the_fields_of_the_options() -> None:
    @dataclass(frozen=True)
    class Options(ImportOptions):
        """Settings.

        Attributes:
            fps: the rate, 100 % yours.
            camera: which one.
            side: either, or none.
            fast: a switch.
        """

        fps: float | None = None
        camera: Literal["left", "right"] = "left"
        side: Literal["left", "right"] | None = None
        fast: bool = False

    parser = argparse.ArgumentParser()
    add_flags(parser, Options)
    assert options_of(parser.parse_args([]), Options) == Options()
    args = parser.parse_args(["--fps", "20", "--camera", "right", "--fast", "--licence", "MIT"])
    assert options_of(args, Options) == Options("MIT", 20.0, "right", fast=True)
    assert options_of(parser.parse_args(["--side=left"]), Options) == Options(side="left")
    with pytest.raises(SystemExit):
        parser.parse_args(["--side=up"])
    assert "the rate, 100 % yours." in parser.format_help()


def test_formats_are_recognised_by_their_files(tmp_path: Path) -> None:
    assert recognised(tmp_path) is None
    assert recognised(udacity_folder(tmp_path / "lap")) == "udacity"
    assert recognised(video_recording(tmp_path / "films")) == "videos"
