"""Rates that are true, and drives brought to one rate: frames, rows, captions and gaps together."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from drives.clips.data_module import ClipDataset
from drives.clips.frame_cache import FrameCache
from drives.drive import Drive, open_drive
from drives.duplicates.prints import prints_of
from drives.folder import at_one_rate, common_rate
from drives.importers.base import import_recordings
from drives.importers.recordings import videos
from drives.sources import DriveSource
from drives.splits.pieces import Piece
from drives.video.gaps import Drop
from drives.video.rate import grid_rate, resampled, rows_over
from drives.writing import write_drive
from tokenizer.encode import average_rows
from training.errors import BadInput


def numbered(number: int) -> np.ndarray:
    """A frame that shows the bits of its number as eight bars."""
    bits = np.unpackbits(np.array([number], np.uint8)) * 200 + 20
    return np.tile(np.repeat(bits, 8)[None, :, None].astype(np.uint8), (32, 1, 3))


def number_of(frame: np.ndarray) -> int:
    bits = frame.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1) > 120
    return int(np.packbits(bits)[0])


def make_drive(path: Path, fps: float, num_frames: int = 60, **meta) -> Drive:
    rows = np.arange(num_frames)[:, None] / 1000
    frames = (numbered(i) for i in range(num_frames))
    write_drive(path, frames, rows, ["steering"], {"fps": fps, "split": "train", **meta})
    return open_drive(path)


def stamped_video(path: Path, times_ms: list[int], first: int = 0) -> None:
    """A video whose frame i shows `first + i` and has the time stamp given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.options = {"crf": "8"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times_ms, first):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers_and_rows(drive: Drive) -> tuple[list[int], list[float]]:
    return [number_of(f) for f in drive.frames()], (drive.actions[:, 0] * 1000).tolist()


# Rates


@pytest.mark.parametrize(
    ("times", "fps"),
    [
        (np.arange(300) / 30, 30),
        (np.rint(np.arange(300) * 100 / 3) / 1000, 30),  # in milliseconds
        (np.delete(np.arange(60), slice(15, 20)) / 10, 10),  # five frames missing
        (np.arange(100) / 10 + np.random.default_rng(0).normal(0, 0.01, 100), 10),  # jitter
        (np.append(np.arange(30) * 0.2, 6 + np.arange(30) * 0.066), None),  # 5 fps, then 15
        (np.append(np.arange(300) / 30, 10 + np.arange(300) / 24), None),  # a phone at dusk
        (np.array([0, 0.1, 0.1]), None),
    ],
)
def test_a_rate_is_claimed_only_where_frames_lie_on_its_grid(times, fps):
    assert grid_rate(times) == (None if fps is None else pytest.approx(fps, rel=1e-3))


def test_frames_nearest_to_the_new_times_and_their_rows():
    picks, drops = resampled(np.arange(30) / 30, 10)
    assert picks.tolist() == list(range(0, 30, 3))
    assert drops == []
    picks, drops = resampled(np.arange(31) / 30, 20)
    # Times in frames of 30 fps are 0, 1.5, 3, 4.5 ...: of two that are as near, the first.
    assert picks.tolist()[:6] == [0, 1, 3, 4, 6, 7]
    assert drops == []
    rows = np.random.default_rng(0).normal(size=(30, 2))
    found = rows_over(rows, np.arange(30) / 30, np.arange(0, 30, 3))
    np.testing.assert_allclose(found, average_rows(rows, 3), rtol=1e-12)


def test_rows_count_by_the_time_that_they_held():
    times, rows = np.array([0, 0.2, 0.3, 0.5]), np.array([[1.0], [4], [2], [8]])
    found = rows_over(rows, times, np.array([0, 2]))
    # 1 for 0.2 s and 4 for 0.1 s; then 2 for 0.2 s and 8 for one more median step.
    np.testing.assert_allclose(found[:, 0], [(0.2 + 0.4) / 0.3, (0.4 + 1.6) / 0.4])


def test_too_few_frames_are_refused():
    with pytest.raises(BadInput, match=r"d: has 10 frames per second, too few for fps=20 \("):
        resampled(np.arange(30) / 10, 20, "d")
    with pytest.raises(BadInput, match="fps=0"):
        resampled(np.arange(30) / 10, 0)


# Drives


def test_a_drive_at_half_its_rate_keeps_frames_rows_captions_and_gaps_together(tmp_path):
    captions = [{"text": "dark", "start": 20, "stop": 41}, {"text": "blink", "start": 7, "stop": 8}]
    drive = make_drive(tmp_path / "a", 20, captions=captions, dropped_frames=[[29, 4]])
    half = drive.at_fps(10)
    numbers, rows = numbers_and_rows(half)
    # Behind frame 29 four frames are missing: 30 is at step 34, that is at 17 of the new rate.
    assert numbers == list(range(0, 30, 2)) + list(range(30, 60, 2))
    np.testing.assert_allclose(rows[:14], np.arange(0, 28, 2) + 0.5, rtol=1e-4)
    assert half.drops == [Drop(14, 2)]
    assert [(c.text, c.start, c.stop) for c in half.captions] == [("dark", 10, 21)]
    assert half.fps == 10
    assert half.num_frames == len(half.actions) == 30
    assert [number_of(f) for f in half.frames(14, 17)] == [28, 30, 32]
    assert half.check_frames() == (32, 64)
    assert half.digest != drive.digest
    assert drive.at_fps(20.1) is drive, "within one percent"
    with pytest.raises(BadInput, match="too few for fps=30"):
        drive.at_fps(30)


def test_a_piece_of_a_drive_is_resampled_from_its_own_first_frame(tmp_path):
    drive = make_drive(tmp_path / "a", 30)
    third = drive.piece(Piece("train", 31, 58)).at_fps(10)
    assert numbers_and_rows(third)[0] == list(range(31, 58, 3))
    assert third.id == "a@31-58"
    with pytest.raises(BadInput, match="has 9 frames; frame 9 is none"):
        list(third.frames(0, 10))


def test_rates_of_one_folder_are_one_set_or_named(tmp_path):
    make_drive(tmp_path / "a", 10)
    make_drive(tmp_path / "b", 30)
    with pytest.raises(BadInput, match=r"a has 10 fps and .*b has 30; .*data\.source\.fps=10 to"):
        common_rate(DriveSource(root=str(tmp_path)).open())
    source = DriveSource(root=str(tmp_path), fps=10)
    drives = source.open()
    assert [len(drive.actions) for drive in drives] == [60, 20]
    assert common_rate(drives) == source.planned()[0] == 10
    with pytest.raises(BadInput, match=r"data\.source\.fps=-1"):
        DriveSource(fps=-1)


def test_phones_of_29_97_and_30_04_are_one_rate(tmp_path):
    """Two clips of one phone (as in BDD100K): the middle of their rates, nothing resampled."""
    drives = [make_drive(tmp_path / name, fps) for name, fps in (("a", 29.97), ("b", 30.04))]
    assert common_rate(drives) == 29.97
    assert common_rate(drives[::-1]) == 29.97
    assert at_one_rate(drives, 30) == drives


def test_a_drive_whose_rate_varies_is_refused_or_read_by_its_stamps(tmp_path):
    make_drive(tmp_path / "b", 10)
    times = [200 * i for i in range(30)] + [6000 + 66 * i for i in range(30)]
    (tmp_path / "b" / "video.mp4").unlink()
    stamped_video(tmp_path / "b" / "video.mp4", times)
    meta = tmp_path / "b" / "drive.json"
    meta.write_text('{"fps": 10, "split": "train"}')
    with pytest.raises(BadInput, match=r"b: its rate varies: steps from 0\.066 to 0\.200 s, so no "
                       r"fps is true; give data\.source\.fps=N"):  # fmt: skip
        DriveSource(root=str(tmp_path)).open()
    (drive,) = DriveSource(root=str(tmp_path), fps=5).open()
    expected = [min(range(60), key=lambda i: abs(times[i] - 200 * n)) for n in range(40)]
    assert numbers_and_rows(drive)[0] == expected


# Import


def imported(folder: Path, out: Path, **options) -> Drive:
    recordings = videos.FORMAT.recordings(folder, **options)
    (path,) = import_recordings(recordings, out, splits=(1, 0, 0))
    return open_drive(path)


def write_rows(file: Path, num_rows: int, times=None) -> None:
    lines = [f"{times[i]},{i / 1000}" if times else f"{i / 1000}" for i in range(num_rows)]
    file.write_text("\n".join(["time_s,steering" if times else "steering", *lines]) + "\n")


def test_a_gap_is_known_after_the_import_as_before_it(tmp_path):
    kept = [i for i in range(60) if not 15 <= i < 20]
    (tmp_path / "in").mkdir()
    stamped_video(tmp_path / "in" / "a.mp4", [100 * i for i in kept])
    write_rows(tmp_path / "in" / "a.csv", len(kept))
    drive = imported(tmp_path / "in", tmp_path / "out")
    assert drive.fps == pytest.approx(10), "not the average, 9.2"
    assert drive.drops == [Drop(14, 5)]
    numbers, rows = numbers_and_rows(drive)
    assert numbers == list(range(55))
    np.testing.assert_allclose(rows, numbers, atol=1e-3)
    splits = import_recordings(videos.FORMAT.recordings(tmp_path / "in"), tmp_path / "cut")
    assert [open_drive(path).drops for path in splits] == [[Drop(14, 5)], [], []]


def test_a_varying_rate_needs_a_stated_one(tmp_path):
    times = [200 * i for i in range(30)] + [6000 + 66 * i for i in range(30)]
    stamped_video(tmp_path / "b.mp4", times)
    write_rows(tmp_path / "b.csv", 60)
    with pytest.raises(BadInput, match=r"b\.mp4: its rate varies.*; give --fps"):
        videos.FORMAT.recordings(tmp_path)
    drive = imported(tmp_path, tmp_path / "out", fps=5)
    numbers, rows = numbers_and_rows(drive)
    assert numbers[:30] == list(range(30))
    assert set(np.diff(numbers[30:])) == {3}
    # The mean of three rows; of the first half, each its own.
    np.testing.assert_allclose(rows[:29], numbers[:29], atol=1e-3)
    np.testing.assert_allclose(rows[31:38], np.array(numbers[31:38]) + 1, atol=1e-3)
    assert drive.meta["picked_at_fps"] == 5
    assert drive.drops == []


def test_a_bare_stream_has_the_rate_that_is_stated(tmp_path):
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in" / "a.hevc"), "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.options = {"x265-params": "log-level=none"}
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_rows(tmp_path / "in" / "a.csv", 20)
    with pytest.raises(BadInput, match=r"a\.hevc: does not state its rate; give --fps"):
        videos.FORMAT.recordings(tmp_path / "in")
    drive = imported(tmp_path / "in", tmp_path / "stated", fps=20)
    assert drive.fps == 20
    assert numbers_and_rows(drive)[0] == list(range(20))
    write_rows(tmp_path / "in" / "a.csv", 20, [i / 20 for i in range(20)])
    (recording,) = videos.FORMAT.recordings(tmp_path / "in")
    assert recording.fps == pytest.approx(20)


def test_stated_gaps_are_judged(tmp_path):
    assert make_drive(tmp_path / "a", 10, dropped_frames=[]).drops == []
    for wrong in ("many", [3], [[1, 0]], [[-1, 2]], [[1, 2, 3]], [[1, True]]):
        drive = make_drive(tmp_path / f"d{len(list(tmp_path.iterdir()))}", 10, dropped_frames=wrong)
        with pytest.raises(BadInput, match=r"dropped_frames holds .*; give pairs"):
            _ = drive.drops


def test_what_is_kept_of_frames_knows_their_rate(tmp_path):
    """Decoded frames and prints of one recording at two rates lie in files of their own."""
    drive = make_drive(tmp_path / "in" / "a", 20)
    cache = FrameCache(tmp_path / "frames", (32, 64))
    for one in (drive, drive.at_fps(10)):
        cache.prepare([one], 0)
        prints = prints_of([one], tmp_path)
        assert len(cache.open(one)) == len(one.actions)
        assert prints[0].fps == one.fps
    assert len(list((tmp_path / "frames").glob("*.npy"))) == 2
    assert len(list((tmp_path / "prints").glob("*.npy"))) == 2
    clips = ClipDataset([drive.at_fps(10)], cache, 4, ["steering"])
    frames, rows = clips[3]
    shown = [number_of(frame.transpose(1, 2, 0)) for frame in frames]
    assert shown == [6, 8, 10, 12]
    np.testing.assert_allclose(rows[:, 0] * 1000, np.array(shown) + 0.5, rtol=1e-3)
