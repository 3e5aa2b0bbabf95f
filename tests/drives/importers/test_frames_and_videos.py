"""Folders of videos or of images, beside tables in any shape: joined, or refused by name."""

import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered import numbered_frame, numbers_of, write_numbered
from PIL import Image

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.base import import_recordings
from drives.importers.formats import recognised
from drives.importers.joining import JoinOptions
from drives.importers.recording import Recording
from drives.importers.recordings import frames, videos
from drives.splits.tracks import track_of
from drives.video.gaps import Drop
from training.errors import BadInput

FRAMES = [numbered_frame(i) for i in range(30)]


def numbers(recording: Recording) -> list[int]:
    return numbers_of(recording.read(0, len(recording.actions)))


def table(file: Path, **columns: Sequence[Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    return file


def images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(FRAMES[number]).save(folder / name)
    return folder


STEERING = [i / 1000 for i in range(30)]


# Folders of images


@pytest.mark.parametrize(
    ("folder", "file"),
    [("lap", "lap/actions.csv"), ("lap", "lap.csv"), ("lap/frames", "lap/actions.csv")],
)
def test_a_folder_of_images_and_its_table(folder: str, file: str, tmp_path: Path) -> None:
    images(tmp_path / folder, [f"{i + 1}.png" for i in range(30)])
    table(tmp_path / file, steering=STEERING)
    assert recognised(tmp_path) == "frames"
    with pytest.raises(BadInput, match=r"does not state its rate; give --fps, or a column time_s"):
        frames.FORMAT.recordings(tmp_path)
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert (recording.id, recording.fps, numbers(recording)) == ("lap", 10, list(range(30)))
    np.testing.assert_allclose(recording.actions[:, 0], STEERING)


def test_the_clock_is_that_of_the_table_or_of_the_names(tmp_path: Path) -> None:
    images(tmp_path / "a", [f"{i}.png" for i in range(30)])
    times = [1.7e9 + i / 20 + (i > 9) for i in range(30)]
    table(tmp_path / "a/actions.csv", timestamp=[f"{t:.3f}" for t in times], steering=STEERING)
    start, step = 1479424215880976321, 50_000_000
    late = [start + step * (i + 4 * (i > 9)) for i in range(30)]
    images(tmp_path / "b", [f"{t}.png" for t in late])
    table(tmp_path / "b/actions.csv", steering=STEERING)
    a, b = frames.FORMAT.recordings(tmp_path)
    assert (a.fps, a.drops) == (20, (Drop(9, 20),))
    assert (b.fps, b.drops) == (20, (Drop(9, 4),))


def test_names_and_rows_on_one_clock_are_joined_by_it(tmp_path: Path) -> None:
    first = 1479424215880976321
    images(tmp_path / "a", [f"{first + 50_000_000 * i}.png" for i in range(30)])
    logged = np.arange(300) / 100 - 0.7  # begins before the camera
    stamps = [first + round(t * 1e9) for t in logged]
    table(tmp_path / "a/actions.csv", timestamp_ns=stamps, steering=logged / 10)
    (recording,) = frames.FORMAT.recordings(tmp_path)
    until_next = np.arange(29) / 20 + 0.025
    np.testing.assert_allclose(recording.actions[:-1, 0] * 10, until_next, atol=1e-5)
    (moved,) = frames.FORMAT.recordings(tmp_path, first_frame_s=first / 1e9 - 0.5)
    np.testing.assert_allclose(moved.actions[:, 0] * 10 + 0.5, recording.actions[:, 0] * 10)
    table(tmp_path / "a/actions.csv", timestamp_ns=np.add(stamps, 10**12), steering=logged / 10)
    with pytest.raises(BadInput, match="put both on one clock, or cut the frames"):
        frames.FORMAT.recordings(tmp_path)


def test_missing_numbers_are_a_gap_and_named_where_rows_are_there(tmp_path: Path) -> None:
    names = [f"{i:04d}.png" for i in range(33) if not 10 <= i < 13]
    images(tmp_path / "a", names)
    table(tmp_path / "a/actions.csv", steering=STEERING)
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert recording.drops == (Drop(9, 3),)
    table(tmp_path / "a/actions.csv", steering=[*STEERING, 0, 0, 0])
    with pytest.raises(
        BadInput, match=r"33 rows, but a has 30 frames \(3 frames are missing: 3 after frame 9\)"
    ):
        frames.FORMAT.recordings(tmp_path, fps=10.0)


def test_missing_numbers_take_their_time_where_a_table_is_joined(tmp_path: Path) -> None:
    kept = np.array([*range(10), *range(30, 50)])
    images(tmp_path / "a", [f"{i:04d}.png" for i in kept])
    clock = np.arange(600) / 100
    table(tmp_path / "a/actions.csv", time_s=clock, steering=clock / 10)
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert recording.drops == (Drop(9, 20),)
    until_next = (kept[:-1] + kept[1:]) / 20
    np.testing.assert_allclose(recording.actions[:-1, 0] * 10, until_next, atol=1e-9)


def test_rows_go_to_the_files_that_they_name(tmp_path: Path) -> None:
    images(tmp_path / "a", [f"{i}.png" for i in range(30)])
    order = [*range(15, 30), *range(15)]
    named = {"image": [f"C:\\data\\{i}.png" for i in order]}
    table(tmp_path / "a/actions.csv", **named, steering=[STEERING[i] for i in order])
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    np.testing.assert_allclose(recording.actions[:, 0], STEERING)
    assert numbers(recording) == list(range(30))
    kept = [i for i in order if i not in (7, 8)]
    named = {"image": [f"{i}.png" for i in kept]}
    table(tmp_path / "a/actions.csv", **named, steering=[STEERING[i] for i in kept])
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert numbers(recording) == sorted(kept)
    np.testing.assert_allclose(recording.actions[:, 0] * 1000, sorted(kept))
    assert recording.drops == (Drop(6, 2),)
    (tmp_path / "a/20.png").unlink()
    with pytest.raises(BadInput, match=r"row 5, column 'image': '20\.png' is not in"):
        frames.FORMAT.recordings(tmp_path, fps=10.0)


def test_images_alone_are_told_and_a_lost_table_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path / "a", [f"{i}.png" for i in range(30)])
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert recording.actions.shape == (30, 0)
    assert "no actions.csv beside it; it becomes frames alone" in caplog.text
    table(tmp_path / "a/labels.csv", steering=STEERING)
    with pytest.raises(BadInput, match=r"no actions\.csv beside it, but labels\.csv"):
        frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert len(frames.FORMAT.recordings(tmp_path, fps=10.0, frames_alone=True)) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Image.new("RGB", (48, 32)).save(f / "7.png"), r"7\.png: is 32x48, the first"),
        (lambda f: (f / "7.png").write_bytes(b""), r"7\.png: cannot be decoded"),
        (lambda f: (f / "07.png").write_bytes((f / "7.png").read_bytes()), "are one number"),
    ],
)
def test_a_bad_image_is_named(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    spoil(images(tmp_path / "a", [f"{i}.png" for i in range(30)]))
    with pytest.raises(BadInput, match=message):
        frames.FORMAT.recordings(tmp_path, fps=10.0)


# Videos


def test_a_log_at_a_hundred_hertz_is_joined_by_time(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    clock = [i / 100 for i in range(300)]
    table(tmp_path / "a.csv", time_s=clock, steering=[t / 10 for t in clock])
    (recording,) = videos.FORMAT.recordings(tmp_path)
    middle = (np.arange(30) + 0.5) / 100  # of the time until the next frame
    np.testing.assert_allclose(recording.actions[:-1, 0], middle[:-1], atol=1e-6)
    table(tmp_path / "a.csv", time_s=[t + 5 for t in clock], steering=[t / 10 for t in clock])
    with pytest.raises(BadInput, match=r"known from 5\.000 to .* a frame is at 0\.000 s"):
        videos.FORMAT.recordings(tmp_path)
    (moved,) = videos.FORMAT.recordings(tmp_path, first_frame_s=5.0)
    np.testing.assert_allclose(moved.actions, recording.actions, atol=1e-6)
    dates = [f"{1.7e9 + t:.3f}" for t in clock]
    table(tmp_path / "a.csv", unix_time=dates, steering=[t / 10 for t in clock])
    (dated,) = videos.FORMAT.recordings(tmp_path)
    np.testing.assert_allclose(dated.actions, recording.actions, atol=1e-6)


def test_a_slower_table_is_joined_by_its_flag(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    clock = [i / 10 for i in range(0, 30, 6)] + [2.9]
    table(tmp_path / "a.csv", time_s=clock, steering=[t / 10 for t in clock])
    with pytest.raises(
        BadInput, match=r"steering has no sample between .*; allow it by --max-gap-s"
    ):
        videos.FORMAT.recordings(tmp_path)
    (recording,) = videos.FORMAT.recordings(tmp_path, max_gap_s=0.7)
    np.testing.assert_allclose(recording.actions[:-1, 0] * 10, np.arange(29) / 10 + 0.05)
    with pytest.raises(BadInput, match=r"max_gap_s=0\.0: give a number above 0"):
        videos.FORMAT.recordings(tmp_path, max_gap_s=0.0)


def test_fixes_between_picked_frames_are_kept(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)  # 10 per second
    fixed = (1, 11, 21)
    lat = [37 + i / 1000 if i in fixed else "" for i in range(30)]
    lon = [-122 if i in fixed else "" for i in range(30)]
    table(tmp_path / "a.csv", steering=STEERING, lat=lat, lon=lon)
    (recording,) = videos.FORMAT.recordings(tmp_path, fps=5.0)
    track = recording.about(0, 15)["track"]
    assert track["frame"] == [0, 5, 10]
    assert track["lat_deg"] == pytest.approx([37.001, 37.01, 37.02])  # none is known before


def test_rows_without_a_fix_are_joined_all_the_same(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    clock = np.arange(400) / 100
    lat = [37 + t / 1000 if i % 100 == 0 else "" for i, t in enumerate(clock)]
    lon = [-122 if i % 100 == 0 else "" for i in range(400)]
    table(tmp_path / "a.csv", time_s=clock, steering=clock / 10, lat=lat, lon=lon)
    (recording,) = videos.FORMAT.recordings(tmp_path, max_gap_s=1.5)
    assert recording.track is not None
    np.testing.assert_allclose(recording.track[:, 0], 37 + (np.arange(30) / 10 + 0.05) / 1000)


def test_gaps_of_the_table_are_known_after_import(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    times = [i / 10 + 0.2 * (i > 19) for i in range(30)]
    table(tmp_path / "a.csv", time_s=times, steering=STEERING)
    recordings = videos.FORMAT.recordings(tmp_path)
    paths = import_recordings(recordings, tmp_path / "out", splits=(0.5, 0, 0.5))
    assert [open_drive(path).drops for path in paths] == [[], [Drop(4, 2)]]


def test_places_become_a_track_and_no_action(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    columns = {"Latitude": [37 + i / 1000 for i in range(30)], "Longitude": [-122] * 30}
    table(tmp_path / "a.csv", **columns, steering=STEERING)
    (recording,) = videos.FORMAT.recordings(tmp_path)
    assert recording.action_names == ("steering",)
    (path,) = import_recordings([recording], tmp_path / "out", splits=(1, 0, 0))
    track = open_drive(path).meta["track"]
    assert (track["lat_deg"][29], track["lon_deg"][0]) == (37.029, -122)


def test_frames_without_a_fix_lie_between_those_with_one(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    fixed = range(0, 20, 10)  # one a second, then none
    columns = {
        "lat": [37 + i / 1000 if i in fixed else "" for i in range(30)],
        "lon": [-122 if i in fixed else "" for i in range(30)],
    }
    table(tmp_path / "a.csv", **columns, steering=STEERING)
    (recording,) = videos.FORMAT.recordings(tmp_path)
    whole, none = import_recordings([recording], tmp_path / "out", splits=(0.7, 0, 0.3))
    drive = open_drive(whole)
    assert drive.meta["track"]["frame"] == [0, 10]
    assert track_of(drive)[[0, 5, 20], 0].tolist() == pytest.approx([37, 37.005, 37.01])
    assert "track" not in open_drive(none).meta


def test_wide_pixels_become_square(tmp_path: Path) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    write_numbered(tmp_path / "a.mp4", FRAMES, setup=wide)
    (recording,) = videos.FORMAT.recordings(tmp_path)
    assert next(iter(recording.read(0, 1))).shape == (64, 128, 3)
    assert numbers(recording) == list(range(30))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"steering": [*STEERING[:9], "nan", *STEERING[10:]]}, r"row 9, column 'steering' is nan"),
        ({"steering": [*STEERING[:9], "left", *STEERING[10:]]}, r"row 9, column 'steering' holds"),
        ({"speed_mps": [300.0] * 30}, r"row 0, speed_mps is 300: no car's; .*speed_kmh"),
        ({"yaw_rate_rad_s": [45.0] * 30}, r"yaw_rate_rad_s is 45: .*yaw_rate_deg_s"),
        ({"steering": STEERING[:29]}, r"29 rows, but a\.mp4 has 30 frames"),
        (
            {"time_s": [0.1 * i - 2 * (i > 9) for i in range(30)], "brake": [0] * 30},
            r"time_s does not move on at row 10 \(from 0\.900 to -1\.000 s\).*--on-bad=skip",
        ),
        ({"Steering": STEERING, "steering ": STEERING}, "are all 'steering'"),
    ],
)
def test_a_bad_table_is_named(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    table(tmp_path / "a.csv", **columns)
    with pytest.raises(BadInput, match=message):
        videos.FORMAT.recordings(tmp_path)


def test_steering_wheel_degrees_need_the_lock(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    table(tmp_path / "a.csv", steering_wheel_deg=[i * 3 for i in range(30)])
    (recording,) = videos.FORMAT.recordings(tmp_path, lock_deg=90.0)
    assert recording.action_names == ("steering",)
    np.testing.assert_allclose(recording.actions[:, 0], -np.arange(30) / 30, atol=1e-9)
    (right,) = videos.FORMAT.recordings(tmp_path, lock_deg=90.0, positive_is="right")
    np.testing.assert_allclose(right.actions[:, 0], np.arange(30) / 30, atol=1e-9)
    with pytest.raises(BadInput, match="beyond full lock at 45"):
        videos.FORMAT.recordings(tmp_path, lock_deg=45.0)


def test_steering_to_the_left_is_turned_round(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", FRAMES)
    table(tmp_path / "a.csv", steering=STEERING, speed_mps=[1] * 30)
    for side, sign in ((None, 1), ("right", 1), ("left", -1)):
        (recording,) = videos.FORMAT.recordings(tmp_path, positive_is=side)
        np.testing.assert_array_equal(recording.actions[:, 0], sign * np.array(STEERING))
    table(tmp_path / "a.csv", steering_wheel_deg=[i * 3 for i in range(30)])
    with pytest.raises(BadInput, match=r"--positive-is left: has no column 'steering'.*--lock-deg"):
        videos.FORMAT.recordings(tmp_path, positive_is="left")


def test_a_video_without_frames_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        out.start_encoding()
    with pytest.raises(BadInput, match=r"a\.mkv: (has no frames|cannot be read as a video)"):
        videos.FORMAT.recordings(tmp_path)


def test_one_file_is_enough(tmp_path: Path) -> None:
    file = write_numbered(tmp_path / "a.mp4", FRAMES)
    write_numbered(tmp_path / "b.mp4", FRAMES)
    (recording,) = videos.FORMAT.recordings(file)
    assert (recording.id, recording.meta["source"]) == ("a", "a.mp4")


def test_bad_recordings_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("day1/front", "day2/front", "day2/rear", "day3/front"):
        write_numbered(tmp_path / f"in/{name}.mp4", FRAMES)
        table(tmp_path / f"in/{name}.csv", steering=STEERING)
    (tmp_path / "in/day1/front.mp4").write_bytes(b"")
    (tmp_path / "in/day2/rear.csv").unlink()
    arguments = ["videos", str(tmp_path / "in"), str(tmp_path / "out"), "--num-workers", "0"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "day1/front.mp4: cannot be read" in (said := capsys.readouterr().err)
    assert "--on-bad=skip leaves it out" in said
    main([*arguments, "--on-bad=skip"])
    told = capsys.readouterr()
    assert "2 left out" in told.err
    assert "day1/front.mp4: cannot be read" in told.err
    assert "day2/rear.mp4: no rear.csv beside it" in told.err
    drives = sorted(path.name for path in (tmp_path / "out").glob("[!.]*-train"))
    assert drives == ["day2-front-train", "day3-front-train"]


@pytest.mark.parametrize("below", ["out", "."])
def test_an_import_does_not_take_its_own_drives_for_recordings(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_numbered(tmp_path / "laps/clip.mp4", FRAMES)
    words = ["videos", str(tmp_path / "laps"), str(tmp_path / "laps" / below), "--num-workers=0"]
    main(words)
    first = capsys.readouterr().out
    assert "clip-train" in first
    main(words)
    assert capsys.readouterr().out == first
    assert not list(tmp_path.rglob("*train-*"))
    (tmp_path / "laps/clip.mp4").unlink()
    for src in (tmp_path / "laps" / below, tmp_path / "laps" / below / "clip-test"):
        with pytest.raises(BadInput, match=r"these are drives already \(clip-test/drive\.json\)"):
            videos.FORMAT.recordings(src)


def test_images_of_our_own_drives_are_no_recordings(tmp_path: Path) -> None:
    images(tmp_path / "lap", [f"{i}.png" for i in range(30)])
    images(tmp_path / "lap-train/frames", [f"{i}.png" for i in range(24)])
    (tmp_path / "lap-train/drive.json").write_text('{"fps": 10}')
    (recording,) = frames.FORMAT.recordings(tmp_path, fps=10.0)
    assert recording.id == "lap"
    for src in (tmp_path / "lap-train", tmp_path / "lap-train/frames"):
        with pytest.raises(BadInput, match=r"these are drives already \(lap-train/drive\.json\)"):
            frames.FORMAT.recordings(src, fps=10.0)


def test_a_folder_of_many_videos_costs_as_much_for_each(tmp_path: Path) -> None:
    def calls(count: int) -> int:
        folder, seen = tmp_path / str(count), 0
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.mp4").touch()

        def counted(*_: Any) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(counted)
        try:
            for candidate in videos.find(folder, JoinOptions()):
                with pytest.raises(BadInput):  # it is empty
                    candidate.read()
        finally:
            sys.setprofile(None)
        return seen

    calls(1)  # what is loaded once
    assert calls(160) < 4.5 * calls(40)
