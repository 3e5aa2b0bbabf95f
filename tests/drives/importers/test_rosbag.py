"""ROS bags: every kind that rosbags writes, every message that is known, and what is refused."""

import numpy as np
import pytest
from ros_bags import KINDS, START_S, camera, odometry, write_bag

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.recordings.rosbag import FORMAT
from drives.splits.tracks import track_of
from training.errors import BadInput


def reds(recording, start=0, stop=None) -> list[int]:
    frames = recording.read(start, len(recording.actions) if stop is None else stop)
    return [int(frame[8, 12, 0]) for frame in frames]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bag_is_one_recording(kind, tmp_path):
    path = write_bag(tmp_path, kind, lambda t: [*camera(t), *odometry(t)])
    for root in (path, tmp_path if kind in ("bag", "folder") else path.parent):
        (recording,) = FORMAT.recordings(root)
        assert recording.fps == 10
        assert recording.action_names == ("speed_mps", "yaw_rate_rad_s", "curvature_per_m")
        np.testing.assert_allclose(recording.actions, [[2.0, 0.5, 0.25]] * 40)
        assert reds(recording) == list(range(0, 80, 2))
        assert reds(recording, 7, 11) == [14, 16, 18, 20]
        frame = next(recording.read(5, 6))
        assert frame.shape == (16, 24, 3)
        assert frame[0, 23].tolist() == [10, 10, 250]


def test_a_bag_becomes_drives(tmp_path):
    path = write_bag(tmp_path / "in", "mcap", lambda t: [*camera(t), *odometry(t)])
    main(["rosbag", str(path), str(tmp_path / "out"), "--num-workers", "0", "--licence", "mine"])
    drives = [open_drive(folder) for folder in sorted((tmp_path / "out").iterdir())]
    assert [drive.num_frames for drive in drives] == [4, 32, 4]
    assert {drive.meta["licence"] for drive in drives} == {"mine"}


@pytest.mark.parametrize("encoding", ["bgra8", "mono8"])
def test_encodings_become_rgb(encoding, tmp_path):
    path = write_bag(tmp_path, "bag", lambda t: camera(t, encoding=encoding))
    (recording,) = FORMAT.recordings(path)
    assert reds(recording) == list(range(0, 80, 2))


def test_compressed_images_and_all_messages_of_a_car(tmp_path):
    def make(types):
        for index in range(40):
            at = START_S + index / 10
            yield "/camera/compressed", at, types.compressed(at, index)
        for index in range(400):
            at = START_S + index / 100
            yield "/imu", at, types.imu(at, -0.25)
        for index in range(5):
            at = START_S + index
            yield "/fix", at, types.fix(at, 37.0 + index / 1000, -122.0)
            yield "/fix", at + 0.5, types.fix(at + 0.5, np.nan, np.nan, status=-1)
        for index in range(40):
            at = START_S + index / 10
            yield "/drive", at, types.ackermann(3.0 if index < 20 else 4.0, 0.1)

    path = write_bag(tmp_path / "in", "bag", make)
    (recording,) = FORMAT.recordings(path, max_gap_s=1.5)
    columns = dict(zip(recording.action_names, recording.actions.T, strict=True))
    assert columns["acceleration_mps2"] == pytest.approx(1.5)
    assert columns["yaw_rate_rad_s"] == pytest.approx(-0.25)
    assert columns["road_wheel_rad"] == pytest.approx(0.1)
    np.testing.assert_allclose(columns["speed_mps"][[0, 19, 20, 39]], [3, 3, 4, 4])
    assert columns["curvature_per_m"][0] == pytest.approx(-0.25 / 3)
    assert reds(recording) == list(range(40))
    main(["rosbag", str(path), str(tmp_path / "out"), "--max-gap-s=1.5", "--num-workers=0"])
    track = track_of(open_drive(tmp_path / "out/drive-train"))
    np.testing.assert_allclose(track[:11, 0], 37 + np.arange(0.05, 1.1, 0.1) / 1000)


def test_ackermann_is_read_of_bags_without_definitions(tmp_path):
    def make(types):
        at = [START_S + index / 10 for index in range(40)]
        drive = [("/drive", t, types.ackermann(3.0, 0.1)) for t in at]
        return [*camera(types), *drive]

    (recording,) = FORMAT.recordings(write_bag(tmp_path, "db3", make))
    assert recording.action_names == ("speed_mps", "road_wheel_rad")


def test_ambiguous_topics_are_named_and_chosen(tmp_path):
    def make(types):
        left = [("/left", at, message) for _, at, message in camera(types)]
        twist = [("/cmd_vel", START_S + i / 10, types.twist(7.0, 0.0)) for i in range(40)]
        return [*camera(types), *left, *odometry(types), *twist]

    path = write_bag(tmp_path, "mcap", make)
    with pytest.raises(BadInput, match=r"2 image topics \(/camera, /left\); choose one by --topic"):
        FORMAT.recordings(path)
    with pytest.raises(BadInput, match=r"topics /cmd_vel, /odom all give speed_mps; .*--signals"):
        FORMAT.recordings(path, topic="/left")
    with pytest.raises(BadInput, match=r"no image topic '/right'; there are /camera, /left"):
        FORMAT.recordings(path, topic="/right")
    with pytest.raises(BadInput, match=r"/odo: .*there are /cmd_vel, /odom"):
        FORMAT.recordings(path, topic="/left", signals="/odo")
    (recording,) = FORMAT.recordings(path, topic="/left", signals="/cmd_vel")
    assert recording.actions[:, 0] == pytest.approx(7.0)
    (recording,) = FORMAT.recordings(path, topic="/left", signals="")
    assert recording.actions.shape == (40, 0)


def test_frames_alone_are_said(tmp_path, caplog):
    path = write_bag(tmp_path, "bag", camera)
    assert FORMAT.recordings(path)[0].actions.shape == (40, 0)
    assert "no topic says what the car does" in caplog.text
    caplog.clear()
    FORMAT.recordings(path, signals="")
    assert not caplog.text


def test_missing_frames_begin_another_recording(tmp_path, caplog):
    def make(types):
        return [*camera(types, 90)[:30], *camera(types, 90)[31:], *odometry(types, 9.0)]

    recordings = FORMAT.recordings(write_bag(tmp_path, "bag", make))
    assert [(r.id, len(r.actions)) for r in recordings] == [("drive-00", 30), ("drive-01", 59)]
    assert reds(recordings[1], 0, 2) == [62, 64]
    assert "1 gaps" in caplog.text


def test_frames_before_the_first_signal_are_left_out(tmp_path, caplog):
    def make(types):
        late = [message for message in odometry(types) if message[1] > START_S + 1]
        return [*camera(types), *late]

    (recording,) = FORMAT.recordings(write_bag(tmp_path, "bag", make))
    assert reds(recording)[0] == 2 * 8  # a quarter of a second before
    assert "left out 8 frames" in caplog.text


def test_what_cannot_be_meant_is_refused(tmp_path):
    odd = write_bag(tmp_path / "a", "bag", lambda t: camera(t, encoding="bayer_rggb8"))
    (recording,) = FORMAT.recordings(odd)
    with pytest.raises(BadInput, match=r"/camera, message 0: images are encoded as 'bayer_rggb8'"):
        list(recording.read(0, 2))

    def back(types):
        return [*camera(types), ("/camera", START_S + 9, types.image(START_S, 0))]

    with pytest.raises(BadInput, match="its clock jumps back after message 39"):
        FORMAT.recordings(write_bag(tmp_path / "b", "bag", back))

    def gap(types):
        holes = [m for m in odometry(types) if not 1 < m[1] - START_S < 2]
        return [*camera(types), *holes]

    with pytest.raises(
        BadInput, match=r"speed_mps has no sample between .*--max-gap-s, .*--signals"
    ):
        FORMAT.recordings(write_bag(tmp_path / "c", "bag", gap))
    assert FORMAT.recordings(tmp_path / "c/drive.bag", max_gap_s=2.0)
    with pytest.raises(BadInput, match="no topic of"):
        FORMAT.recordings(write_bag(tmp_path / "d", "bag", odometry))
    with pytest.raises(BadInput, match="holds no ROS bag"):
        FORMAT.recordings(tmp_path / "a" / "none")


@pytest.mark.parametrize("kind", ["bag", "db3", "mcap"])
def test_half_a_bag_is_refused(kind, tmp_path):
    path = write_bag(tmp_path, kind, lambda t: [*camera(t), *odometry(t)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=path.name):
        list(FORMAT.recordings(path)[0].read(0, 40))


def test_without_rosbags_the_extra_is_named(tmp_path, monkeypatch):
    path = write_bag(tmp_path, "bag", camera)
    monkeypatch.setitem(__import__("sys").modules, "rosbags.highlevel", None)
    with pytest.raises(BadInput, match=r"dashcast\[ros\]"):
        FORMAT.recordings(path)
