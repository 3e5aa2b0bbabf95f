"""Drives: what is written reads back, frame by frame, and unusable input is named."""

import json
import shutil
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from drives import video
from drives.check import main
from drives.drive import open_drive
from drives.folder import open_drives
from drives.video import reading
from drives.writing import write_drive
from training.errors import BadInput

NUM_FRAMES = 40
NAMES = ("steering", "speed_mps")


def moving_frames(
    num_frames: int = NUM_FRAMES, height: int = 32, width: int = 48
) -> list[np.ndarray]:
    """Textured frames, each different from the next."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    texture = np.asarray(Image.fromarray(noise).resize((width * 2, height * 2)).convert("RGB"))
    corners = [(i % height, i % width) for i in range(num_frames)]
    return [texture[top : top + height, left : left + width] for top, left in corners]


def actions(num_frames: int = NUM_FRAMES) -> np.ndarray:
    time = np.arange(num_frames)
    return np.stack([np.sin(time / 5), time * 0.3], axis=1).astype(np.float32)


def make_drive(path: Path, **meta: object) -> Path:
    write_drive(path, moving_frames(), actions(), NAMES, {"fps": 10, "split": "train", **meta})
    return path


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return make_drive(tmp_path / "a")


def faststart(path: Path) -> None:
    """Move the header of an mp4 to the front, so that a cut file still opens."""
    whole = path.with_name("whole.mp4")
    path.rename(whole)
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole.unlink()


def packet_positions(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [p.pos for p in container.demux(container.streams.video[0]) if p.size]


def refuse(path: Path, *words: str, columns: Sequence[str] | None = None) -> None:
    """The drive opens or decodes with a BadInput that holds all of the words."""
    with pytest.raises(BadInput) as error:
        open_drive(path, columns).check_frames()
    for word in words:
        assert word in str(error.value)


def edit_meta(path: Path, **values: object) -> None:
    file = path / "drive.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def edit_row(path: Path, row: int, text: str) -> None:
    file = path / "actions.csv"
    lines = file.read_text().splitlines()
    lines[row + 1] = text
    file.write_text("\n".join(lines) + "\n")


# What is right


def test_a_drive_reads_back_as_it_was_written(drive: Path) -> None:
    opened = open_drive(drive, ["speed_mps"])
    assert (opened.id, opened.fps, opened.split, opened.num_frames) == ("a", 10.0, "train", 40)
    assert opened.action_names == NAMES
    np.testing.assert_array_equal(opened.actions, actions())
    np.testing.assert_array_equal(opened.select_actions(["speed_mps"])[:, 0], actions()[:, 1])
    assert opened.check_frames() == (32, 48)
    written, read = np.stack(moving_frames()).astype(float), np.stack(list(opened.frames()))
    copied = np.abs(np.roll(written, 1, axis=0) - read).mean()
    assert np.abs(written - read).mean() < copied / 4


def test_parquet_and_image_folders_are_drives_too(drive: Path) -> None:
    video_frames = list(open_drive(drive).frames())
    pa.parquet.write_table(
        pa.table({name: actions()[:, i] for i, name in enumerate(NAMES)}), drive / "actions.parquet"
    )
    (drive / "frames").mkdir()
    for index, frame in enumerate(video_frames):
        Image.fromarray(frame).save(drive / f"frames/{index:04d}.png")
    (drive / "actions.csv").unlink()
    (drive / "video.mp4").unlink()
    edit_meta(drive, actions_sha256="")
    opened = open_drive(drive)
    np.testing.assert_array_equal(opened.actions, actions())
    np.testing.assert_array_equal(np.stack(list(opened.frames(3, 9))), np.stack(video_frames[3:9]))


def test_a_split_is_given_to_every_drive_and_kept_where_there_is_one(tmp_path: Path) -> None:
    for name in "abcd":
        make_drive(tmp_path / name, split=None)
    assert [d.split for d in open_drives(tmp_path)] == ["train", "train", "val", "test"]
    edit_meta(tmp_path / "d", split="train")
    assert open_drives(tmp_path)[3].split == "train"
    shutil.rmtree(tmp_path / "c")
    shutil.rmtree(tmp_path / "d")
    assert [d.split for d in open_drives(tmp_path)] == ["train", "test"]


def test_an_unfinished_drive_is_not_seen_and_leaves_nothing(drive: Path) -> None:
    def interrupted() -> object:
        yield from moving_frames(5)
        raise KeyboardInterrupt

    root = drive.parent
    with pytest.raises(KeyboardInterrupt):
        write_drive(root / "b", interrupted(), actions(), NAMES, {"fps": 10})
    assert [path.name for path in root.iterdir()] == ["a"]
    shutil.copytree(drive, root / ".c.partial")
    assert [d.id for d in open_drives(root)] == ["a"]


def encode(path: Path, codec: str, options: dict[str, str], stretch: bool = False) -> Path:
    """Encode with settings of other people's cameras; `stretch` makes the rate vary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.options = 32, 48, "yuv420p", options
        stamp = 0
        for index, image in enumerate(moving_frames(60)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if stretch:
                frame.pts, frame.time_base = stamp, Fraction(1, 10)
                stamp += 1 + (index % 3 == 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options", "stretch"),
    [
        ("b_frames.mp4", "libx264", {"g": "30", "bf": "3"}, False),
        ("varying_rate.mp4", "libx264", {"g": "30", "bf": "2"}, True),
        ("open_groups.mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, False),
        ("open_groups.mkv", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, False),
        ("no_stamps.avi", "libx264", {"g": "12", "bf": "2"}, False),
        ("raw.avi", "mpeg4", {"g": "12"}, False),
    ],
)
def test_any_video_read_from_the_middle_equals_a_read_from_the_top(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], stretch: bool
) -> None:
    path = encode(tmp_path / name, codec, options, stretch)
    assert_random_access(path, range(60))


@pytest.mark.parametrize("fps", [10, 29.97, 9.615, 0.5])
def test_our_own_video_read_from_the_middle_equals_a_read_from_the_top(
    tmp_path: Path, fps: float
) -> None:
    path = tmp_path / "video.mp4"
    assert video.write_video(path, moving_frames(70), fps) == 70
    assert video.frame_rate(path) == pytest.approx(fps, rel=1e-3)
    assert_random_access(path, range(70))


@pytest.mark.parametrize(
    ("name", "top"), [("lake", 400), pytest.param("mountain", None, marks=pytest.mark.slow)]
)
def test_recorded_video_read_from_the_middle_equals_a_read_from_the_top(
    shared: Path, name: str, top: int | None
) -> None:
    path = shared / "data" / "udacity" / name / "video.mp4"
    num_frames = top or video.num_frames(path)
    starts = np.random.default_rng(0).integers(0, num_frames - 1, 12).tolist()
    assert_random_access(path, [*range(17, 22), *starts, num_frames - 1], top)


def assert_random_access(path: Path, starts: Sequence[int], top: int | None = None) -> None:
    """Against the first `top` frames, or all, decoded in one go."""
    num_frames = top or video.num_frames(path)
    wanted = {start: (start, min(start + 2, num_frames)) for start in starts}
    keep = {index for pair in wanted.values() for index in range(*pair)}
    count, whole = 0, {}
    for count, frame in enumerate(video.read_frames(path, 0, top), 1):
        if count - 1 in keep:
            whole[count - 1] = frame
    assert count == num_frames
    for start, stop in wanted.values():
        part = list(video.read_frames(path, start, stop))
        assert len(part) == stop - start, start
        for index, frame in enumerate(part, start):
            np.testing.assert_array_equal(frame, whole[index], err_msg=f"{start}: frame {index}")


def test_a_read_from_the_middle_decodes_one_group_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "video.mp4"
    video.write_video(path, moving_frames(100), 10)
    decoded = []
    original = reading.place_of

    def counted(index: reading.Index, stamp: int | None, otherwise: int) -> int:
        decoded.append(original(index, stamp, otherwise))
        return decoded[-1]

    monkeypatch.setattr(reading, "place_of", counted)
    assert len(list(video.read_frames(path, 90, 92))) == 2
    assert min(decoded) >= 90 - video.KEYFRAME_EVERY


def test_odd_sizes_keep_their_size_and_full_colour(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    video.write_video(path, moving_frames(4, 31, 45), 10)
    assert next(video.read_frames(path)).shape == (31, 45, 3)
    with av.open(str(path)) as container:
        assert container.streams.video[0].pix_fmt == "yuv444p"


def test_frames_alone_are_a_drive(drive: Path, tmp_path: Path) -> None:
    """Enough for a tokenizer, and for a world model of what happens by itself."""
    (drive / "actions.csv").unlink()
    refuse(drive, "actions.csv: altered", "drop actions_sha256 from drive.json")
    edit_meta(drive, actions_sha256="")
    opened = open_drive(drive)
    assert (opened.action_names, opened.actions.shape) == ((), (NUM_FRAMES, 0))
    write_drive(tmp_path / "b", opened.frames(), opened.actions, (), {"fps": 10})
    assert not (tmp_path / "b/actions.csv").exists()
    assert open_drive(tmp_path / "b").actions.shape == (NUM_FRAMES, 0)


# What is not


def test_a_missing_or_empty_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        open_drives(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds no drives"):
        open_drives(tmp_path)


def test_a_drive_without_frames_or_meta_is_named(drive: Path) -> None:
    (drive / "video.mp4").unlink()
    refuse(drive, str(drive), "neither video.mp4 nor frames")
    (drive / "drive.json").unlink()
    refuse(drive, "drive.json: missing", '{"fps": 10}')


def test_something_that_is_no_video_is_named(drive: Path) -> None:
    (drive / "video.mp4").write_bytes(b"not a video at all" * 100)
    refuse(drive, "video.mp4: cannot be read as a video", "re-export")


def test_a_truncated_video_with_its_header_at_the_end_is_named(drive: Path) -> None:
    data = (drive / "video.mp4").read_bytes()
    (drive / "video.mp4").write_bytes(data[: len(data) // 2])
    refuse(drive, "video.mp4: cannot be read as a video, or was cut short", "copy the file again")


@pytest.mark.parametrize("frame", [0, 17, 39])
def test_a_truncated_video_with_its_header_in_front_names_the_frame(
    drive: Path, frame: int
) -> None:
    path = drive / "video.mp4"
    faststart(path)
    assert open_drive(drive).num_frames == 40
    cut = packet_positions(path)[frame] + 10
    path.write_bytes(path.read_bytes()[:cut])
    refuse(drive, "video.mp4: truncated", f"at frame {frame} of 40")


@pytest.mark.parametrize("frame", [1, 20, 39])
def test_damage_in_the_middle_names_the_frame(drive: Path, frame: int) -> None:
    path = drive / "video.mp4"
    data = bytearray(path.read_bytes())
    position = packet_positions(path)[frame]
    data[position : position + 30] = b"\xff" * 30
    path.write_bytes(data)
    assert open_drive(drive).num_frames == 40, "only decoding can find this"
    refuse(drive, "video.mp4", f"frame {frame} cannot be decoded")
    edit_meta(drive, video_sha256="")
    assert len(list(open_drive(drive).frames(0, frame))) == frame
    with pytest.raises(BadInput, match=f"frame {frame} cannot be decoded"):
        list(open_drive(drive).frames(frame, 40))


def test_damage_that_decodes_to_a_wrong_picture_is_found_by_the_hash(drive: Path) -> None:
    path = drive / "video.mp4"
    data, middle = bytearray(path.read_bytes()), sum(packet_positions(path)[20:22]) // 2
    data[middle] ^= 1
    path.write_bytes(data)
    refuse(drive, "video.mp4")
    with pytest.raises(BadInput, match=r"video\.mp4: altered since it was written"):
        open_drive(drive).frames()
    edit_meta(drive, video_sha256="")
    video.write_video(path, moving_frames(), 10)
    assert open_drive(drive).check_frames() == (32, 48)


def test_a_broken_or_odd_image_is_named(drive: Path) -> None:
    (drive / "frames").mkdir()
    for index, frame in enumerate(moving_frames()):
        Image.fromarray(frame).save(drive / f"frames/{index:04d}.png")
    (drive / "video.mp4").unlink()
    odd = drive / "frames/0007.png"
    Image.fromarray(moving_frames(1, 16, 48)[0]).save(odd)
    refuse(drive, "0007.png: is 16x48, the first image 32x48")
    Image.fromarray(moving_frames(1)[0]).save(odd)
    odd.write_bytes(odd.read_bytes()[:60])
    refuse(drive, "0007.png: cannot be decoded")
    with pytest.raises(BadInput, match="holds 40 frames, 50 were expected"):
        list(open_drive(drive).frames(30, 50))


def test_rows_and_frames_must_agree(drive: Path) -> None:
    file = drive / "actions.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-3]) + "\n")
    refuse(drive, "37 action rows for 40 frames", "one row per frame")


def test_a_missing_column_names_those_there(drive: Path) -> None:
    refuse(drive, "no column 'brake'", "steering, speed_mps", columns=["steering", "brake"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nan,1.0", ("row 5", "'steering' is nan")),
        (",1.0", ("row 5", "'steering' is nan")),
        ("0.1,inf", ("row 5", "'speed_mps' is inf")),
        ("1.5,1.0", ("row 5", "steering is 1.5", "[-1, 1]")),
        ("left,1.0", ("cannot be read as numbers", "left")),
        ("0.1", ("cannot be read as numbers",)),
    ],
)
def test_a_bad_value_is_named(drive: Path, row: str, words: tuple[str, ...]) -> None:
    edit_row(drive, 5, row)
    refuse(drive, "actions.csv", *words)


@pytest.mark.parametrize("header", ["steering,steering", ""])
def test_a_bad_header_is_named(drive: Path, header: str) -> None:
    edit_row(drive, -1, header)
    refuse(drive, "actions.csv")


@pytest.mark.parametrize("fps", [0, -10, "10", None, True, 1e6])
def test_a_bad_frame_rate_is_named(drive: Path, fps: object) -> None:
    edit_meta(drive, fps=fps)
    refuse(drive, "drive.json", f"fps is {fps!r}", "positive number")


def test_a_bad_split_or_broken_json_is_named(drive: Path) -> None:
    edit_meta(drive, split="dev")
    refuse(drive, "drive.json", "split is 'dev'", "train, val, test")
    (drive / "drive.json").write_text("{")
    refuse(drive, "drive.json: truncated, altered, or no JSON")


def test_a_root_without_a_train_drive_is_refused(drive: Path) -> None:
    edit_meta(drive, split="test")
    with pytest.raises(BadInput, match='set "split": "train"'):
        open_drives(drive.parent)


def test_writing_refuses_what_reading_would(tmp_path: Path, drive: Path) -> None:
    def write(rows: np.ndarray, meta: dict[str, object], name: str = "b") -> None:
        write_drive(tmp_path / name, moving_frames(), rows, NAMES, meta)

    with pytest.raises(BadInput, match="nothing is overwritten"):
        write(actions(), {"fps": 10}, "a")
    with pytest.raises(BadInput, match="fps is None"):
        write(actions(), {})
    with pytest.raises(BadInput, match=r"drive\.json: track would hold NaN or infinity"):
        write(actions(), {"fps": 10, "track": {"lat_deg": [float("nan")] * NUM_FRAMES}})
    with pytest.raises(BadInput, match="39 action rows for 40 frames"):
        write(actions(39), {"fps": 10})
    with pytest.raises(BadInput, match="steering is 2"):
        write(actions() + 2, {"fps": 10})
    with pytest.raises(BadInput, match="no frames"):
        write_drive(tmp_path / "b", [], actions(0), NAMES, {"fps": 10})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


# The command


def test_the_command_prints_one_line_per_drive_or_the_message_alone(
    drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", str(drive.parent)])
    main()
    assert capsys.readouterr().out == "a  train  40 frames  10 fps  32x48  steering speed_mps\n"
    edit_row(drive, 3, "nan,0")
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert shown.count("\n") == 1
    assert "row 3, column 'steering' is nan" in shown
