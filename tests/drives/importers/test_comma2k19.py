"""comma2k19: a real minute of logs with frames made here; segments joined, zipped, damaged."""

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from comma2k19_files import save, write_hevc, write_segment

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.recordings.comma2k19 import FORMAT
from drives.splits.tracks import track_of
from training.errors import BadInput

NAMES = ("speed_mps", "yaw_rate_rad_s", "curvature_per_m", "road_wheel_rad", "steering")


@pytest.fixture
def route(tmp_path: Path) -> Path:
    """Two segments that follow each other, and one after a pause."""
    folder = tmp_path / "Chunk_1" / "b0c9|2018-08-02--08-34-47"
    for number, start_s, first in (("9", 100.0, 0), ("10", 101.5, 30), ("12", 110.0, 60)):
        write_segment(folder / number, start_s, first=first)
    return folder


def greys(recording) -> list[int]:
    frames = list(recording.read(0, len(recording.actions)))
    return [round(float(frame.mean())) for frame in frames]


def test_a_real_minute_becomes_drives_at_its_true_rate(shared, tmp_path):
    real = next((shared / "data" / "comma2k19" / "Example_1").glob("*/40"))
    copy = tmp_path / "in" / real.parent.name / "40"
    shutil.copytree(real, copy, copy_function=shutil.copyfile)
    copy.chmod(0o755)
    write_hevc(copy / "video.hevc", 1200)
    out = tmp_path / "out"
    main(["comma2k19", str(tmp_path / "in"), str(out), "--num-workers", "0"])
    drives = [
        open_drive(out / f"b0c9d2329ad1606b_2018-08-02--08-34-47-40-{split}")
        for split in ("train", "val", "test")
    ]
    assert [drive.num_frames for drive in drives] == [960, 120, 120]
    assert {drive.fps for drive in drives} == {20.0}
    assert drives[0].action_names == NAMES
    assert drives[0].meta["licence"] == "MIT"
    rows = np.concatenate([drive.actions for drive in drives])

    def load(name):
        return np.load(real / name)

    # Two oracles that the importer does not read: the velocities of the poses, and the gyroscope.
    velocity = np.linalg.norm(load("global_pose/frame_velocities"), axis=1)
    assert np.abs(rows[:, 0] - velocity).max() < 0.4
    times, gyro = load("global_pose/frame_times"), load("processed_log/IMU/gyro/value")
    left = -np.interp(times + 0.025, load("processed_log/IMU/gyro/t"), gyro[:, 2])
    smooth = [np.convolve(values, np.full(20, 1 / 20), "valid") for values in (rows[:, 1], left)]
    assert np.corrcoef(smooth)[0, 1] > 0.95
    wheel_deg = load("processed_log/CAN/steering_angle/value")
    assert np.abs(rows[:, 4]).max() == pytest.approx(np.abs(wheel_deg).max() / 540, abs=1e-3)
    assert np.corrcoef(rows[:, 3], rows[:, 4])[0, 1] < -0.999  # one is positive to the left
    fix = load("processed_log/GNSS/live_gnss_ublox/value")
    assert np.abs(track_of(drives[0])[0] - fix[0, :2]).max() < 2e-4  # 20 m
    assert np.abs(track_of(drives[2])[-1] - fix[-1, :2]).max() < 2e-4


def test_columns_have_the_signs_and_units_of_their_names(route):
    first = FORMAT.recordings(route, ratio=15.0, lock_deg=450.0)[0]
    speed, turn, curvature, wheel, steering = first.actions[:-1].T
    assert first.action_names == NAMES
    np.testing.assert_allclose(speed, 10)
    np.testing.assert_allclose(turn, 0.1, rtol=1e-6)  # left
    np.testing.assert_allclose(curvature, 0.01, rtol=1e-6)
    np.testing.assert_allclose(wheel, np.radians(2), rtol=1e-6)
    np.testing.assert_allclose(steering, -30 / 450, rtol=1e-6)  # positive to the right


def test_segments_are_recordings_unless_joined(route):
    alone = FORMAT.recordings(route.parent)
    assert [r.id for r in alone] == [f"b0c9_2018-08-02--08-34-47-{n}" for n in ("10", "12", "9")]
    joined = FORMAT.recordings(route.parent, join=True)
    assert [(r.id[-5:], len(r.actions)) for r in joined] == [("-9-10", 60), ("47-12", 30)]
    assert greys(joined[0]) == pytest.approx(list(range(20, 80)), abs=1)
    middle = [round(float(f.mean())) for f in joined[0].read(28, 33)]
    assert middle == pytest.approx([48, 49, 50, 51, 52], abs=1)
    assert len(joined[0].track) == 60


def test_a_zip_is_read_where_it_lies(route, tmp_path):
    plain = FORMAT.recordings(route.parent)
    archive = tmp_path / "Chunk_1.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(route.parent.rglob("*")):
            packed.write(file, file.relative_to(tmp_path))
    shutil.rmtree(route.parent)
    before = sorted(tmp_path.rglob("*"))
    for root in (archive, tmp_path):
        zipped = FORMAT.recordings(root)
        assert [r.id for r in zipped] == [r.id for r in plain]
        for mine, theirs in zip(zipped, plain, strict=True):
            np.testing.assert_array_equal(mine.actions, theirs.actions)
    assert greys(zipped[2]) == pytest.approx(list(range(20, 50)), abs=1)
    assert sorted(tmp_path.rglob("*")) == before
    main(["comma2k19", str(archive), str(tmp_path / "out"), "--num-workers", "0"])
    assert pickle.loads(pickle.dumps(zipped[2].source)) == zipped[2].source  # workers read it
    assert len(list((tmp_path / "out").iterdir())) == 9


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def pickled(file: Path) -> None:
    save(file, np.array([{"a": 1}], dtype=object))


def nan(file: Path) -> None:
    values = np.load(file)
    values.flat[5] = np.nan
    save(file, values)


def hole(file: Path) -> None:
    times = np.load(file)
    times[20:] += 0.2
    save(file, times)


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("global_pose/frame_times", hole, "after frame 19; frames are missing"),
        ("global_pose/frame_positions", cut, "is not a NumPy array file"),
        ("global_pose/frame_orientations", pickled, "is not a NumPy array file"),
        ("processed_log/CAN/speed/value", nan, "row 5 is not finite"),
        ("processed_log/CAN/speed/t", Path.unlink, "cannot be read"),
        ("video.hevc", Path.unlink, "video.hevc"),
        ("video.hevc", lambda file: write_hevc(file, 29), "has 29 frames, frame_times 30"),
    ],
)
def test_a_damaged_segment_is_named_and_can_be_left_out(route, tmp_path, capsys, name, harm, said):
    harm(route / "10" / name)
    with pytest.raises(BadInput, match=said) as error:
        FORMAT.recordings(route)
    assert str(route / "10") in str(error.value)
    out = tmp_path / "out"
    main(["comma2k19", str(route), str(out), "--on-bad=skip", "--num-workers", "0"])
    assert said in capsys.readouterr().err
    assert {path.name.rpartition("-")[0][-2:] for path in out.iterdir()} == {"-9", "12"}


def test_a_wheel_beyond_full_lock_names_the_setting(route):
    with pytest.raises(BadInput, match="lock_deg"):
        FORMAT.recordings(route, lock_deg=20.0)


def test_a_damaged_zip_is_named(route, tmp_path):
    archive = tmp_path / "Chunk_1.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(route.rglob("*")):
            packed.write(file, file.relative_to(tmp_path))
    whole = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as packed:
        place = packed.getinfo(f"Chunk_1/{route.name}/9/video.hevc").header_offset + 200
    whole[place] ^= 1
    archive.write_bytes(whole)
    with pytest.raises(BadInput, match=r"Chunk_1.zip: .*video.hevc: is damaged"):
        FORMAT.recordings(archive)
    archive.write_bytes(whole[:-100])
    with pytest.raises(BadInput, match=r"Chunk_1.zip: is damaged"):
        FORMAT.recordings(archive)


def test_a_zip_cannot_write_outside(route, tmp_path):
    archive = tmp_path / "in/evil.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((route / "9").rglob("*")):
            packed.write(file, f"../../../out/..|../9/{file.relative_to(route / '9')}")
    shutil.rmtree(route.parent)
    (recording,) = FORMAT.recordings(archive)
    assert recording.id == "_-9"
    assert len(list(recording.read(0, 30))) == 30
    main(["comma2k19", str(archive), str(tmp_path / "drives"), "--num-workers", "0"])
    assert {path.name for path in tmp_path.iterdir()} == {"in", "drives"}
    assert not (tmp_path.parent / "out").exists()


def test_nothing_of_comma2k19_is_said(tmp_path):
    with pytest.raises(BadInput, match="global_pose/frame_times"):
        FORMAT.recordings(tmp_path)
