"""Folders as other systems leave them: what is found, what is refused, which traps are named."""

import shutil

import numpy as np
import pytest
from encoded_videos import smooth_frames
from PIL import Image

from drives.video import write_video
from training.errors import BadInput
from worldmodel.evaluation.videos.clips import spread_clips, too_short
from worldmodel.evaluation.videos.folders import open_videos, traps

FRAMES = smooth_frames(12, 32, 48)


def write_gif(path, frames, ms=100):
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=ms, loop=0)


def write_pngs(folder, frames):
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:04d}.png")


def opened(folder, **rates):
    return open_videos("real", folder, rates.get("fps"), rates.get("image_fps"))


def test_videos_gifs_and_images_are_found(tmp_path):
    write_video(tmp_path / "b.mp4", FRAMES, 10)
    write_gif(tmp_path / "c.gif", FRAMES)
    write_pngs(tmp_path / "a", FRAMES)
    write_pngs(tmp_path / "drive" / "frames", FRAMES)
    (tmp_path / "drive" / "actions.csv").write_text("steering\n" + "0.5\n" * 12)
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / ".hidden.mp4").write_bytes(b"not a video either")
    found = opened(tmp_path, image_fps=20.0)
    facts = [(v.name, round(v.fps), v.num_frames, v.size) for v in found]
    size = (32, 48)
    expected = [("a", 20, 12, size), ("b", 10, 12, size), ("c", 10, 12, size)]
    assert facts == [*expected, ("drive", 20, 12, size)]
    assert [v.actions is not None for v in found] == [False, False, False, True]
    np.testing.assert_array_equal(found[0].read([0, 5, 11]), FRAMES[[0, 5, 11]])
    assert np.abs(found[2].read([3]).astype(int) - FRAMES[3]).mean() < 12  # 256 colours


def test_frames_are_read_at_another_rate(tmp_path):
    write_pngs(tmp_path / "a", FRAMES)
    (half,) = opened(tmp_path, image_fps=10.0, fps=5.0)
    assert half.num_frames == 6
    np.testing.assert_array_equal(half.read(range(6)), FRAMES[::2])
    (double,) = opened(tmp_path, image_fps=10.0, fps=20.0)
    np.testing.assert_array_equal(double.read(range(4)), FRAMES[[0, 0, 1, 1]])


def test_two_drives_are_no_pair_because_their_videos_are_both_named_video(tmp_path):
    for name in ("lake", "mountain"):
        write_video(tmp_path / name / "video.mp4", FRAMES, 10)
        (tmp_path / name / "actions.csv").write_text("steering\n" + "0.5\n" * 12)
    found = [opened(tmp_path / name)[0] for name in ("lake", "mountain")]
    assert [video.name for video in found] == ["lake", "mountain"]
    assert found[0].actions == tmp_path / "lake"


def test_clips_are_spread_and_do_not_overlap(tmp_path):
    write_pngs(tmp_path / "a", FRAMES)
    write_pngs(tmp_path / "b", FRAMES[:9])
    write_pngs(tmp_path / "c", FRAMES[:3])
    videos = opened(tmp_path, image_fps=10.0)
    assert spread_clips(videos, 4, 99).ids == [
        *("a[0..3]", "a[4..7]", "a[8..11]"),
        *("b[0..3]", "b[4..7]"),
    ]
    assert spread_clips(videos, 4, 2).ids == ["a[0..3]", "b[4..7]"]
    assert too_short(videos, 4) == ["c"]
    clips = spread_clips(videos, 4, 99)
    np.testing.assert_array_equal(clips.read(1).numpy(), FRAMES[4:8])
    assert clips.units[0] == "a, part 0"  # few videos
    assert clips.names[-1] == "b"


def test_unusable_folders_and_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"real=.*gone: no such folder"):
        opened(tmp_path / "gone")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match=r"holds no videos; give MP4s"):
        opened(empty)
    write_pngs(tmp_path / "loose", FRAMES[:1])
    with pytest.raises(BadInput, match="a folder of its own"):
        opened(tmp_path / "loose")
    write_pngs(tmp_path / "images" / "a", FRAMES[:2])
    with pytest.raises(BadInput, match=r"state no frame rate; give image_fps"):
        opened(tmp_path / "images")
    Image.fromarray(FRAMES[0][:16]).save(tmp_path / "images" / "a" / "0001.png")
    with pytest.raises(BadInput, match=r"0001\.png: is 16x48"):
        opened(tmp_path / "images", image_fps=1.0)


def test_damaged_videos_and_equal_names_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, 10)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "a.mov")
    with pytest.raises(BadInput, match="two videos are named 'a'"):
        opened(tmp_path)
    (tmp_path / "a.mov").unlink()
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:900])
    with pytest.raises(BadInput, match=r"b\.mp4: cannot be read"):
        opened(tmp_path)


def test_a_gif_whose_writer_merged_equal_frames_is_a_named_trap(tmp_path):
    """Sixteen frames, six of them as the one before: the file holds ten."""
    frames = FRAMES[[0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9]]
    (tmp_path / "g").mkdir()
    write_gif(tmp_path / "g" / "merged.gif", frames)
    found = opened(tmp_path / "g")
    assert found[0].num_frames == 10
    assert "16 frames are read as 10" in traps(found, found)["missing_frames"]


def test_other_rates_and_sizes_are_named_traps(tmp_path):
    write_video(tmp_path / "real" / "a.mp4", FRAMES, 10)
    write_video(tmp_path / "fake" / "a.mp4", FRAMES[:, ::2, ::2], 14)
    real, fake = (opened(tmp_path / side) for side in ("real", "fake"))
    found = traps(real, fake)
    assert set(found) == {"frame_rate", "size"}
    assert "real 10, fake 14 fps" in found["frame_rate"]
    assert "real 32x48, fake 16x24" in found["size"]
    assert traps(real, real) == {}
    same = [opened(tmp_path / side, fps=10.0) for side in ("real", "fake")]
    assert set(traps(*same)) == {"size"}
