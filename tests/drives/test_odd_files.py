"""Videos and images as cameras, phones and capture programs write them: read as a player shows
them, whole, in order, or refused by name."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import number_of, numbered_frame, numbers_of, write_numbered
from PIL import Image

from drives import video
from drives.video.images import image_size, read_image
from training.errors import BadInput

FRAMES = [numbered_frame(i) for i in range(30)]


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_phone_held_upright(turned: int, tmp_path: Path) -> None:
    coded = [np.rot90(frame, -turned // 90) for frame in FRAMES]
    file = write_numbered(
        tmp_path / "a.mp4", coded, setup=lambda stream: stream.set_display_rotation(turned)
    )
    assert numbers_of(video.read_frames(file)) == list(range(30))
    assert numbers_of(video.read_frames(file, 25, 28)) == [25, 26, 27]
    assert video.frame_size(file) == (64, 96)


def test_a_mirrored_video(tmp_path: Path) -> None:
    file = write_numbered(
        tmp_path / "a.mp4",
        [frame[:, ::-1] for frame in FRAMES],
        setup=lambda stream: stream.set_display_matrix([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]),
    )
    assert numbers_of(video.read_frames(file)) == list(range(30))


def test_a_slanted_video_is_refused(tmp_path: Path) -> None:
    file = write_numbered(
        tmp_path / "a.mp4", FRAMES, setup=lambda stream: stream.set_display_rotation(30)
    )
    with pytest.raises(BadInput, match=r"a\.mp4: frame 0 .* no multiple of 90 degrees"):
        next(iter(video.read_frames(file)))


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_raw_stream_has_no_rate(codec: str, name: str, tmp_path: Path) -> None:
    file = write_numbered(tmp_path / f"a.{name}", FRAMES, fps=20, codec=codec, container=name)
    assert video.frame_rate(file) == 0, "FFmpeg says 25"
    assert video.times_s(file) is None
    assert numbers_of(video.read_frames(file)) == list(range(30))


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    times = [*range(1000, 2500, 100), *range(3000, 4500, 100)]
    file = write_numbered(tmp_path / "a.mkv", FRAMES, times_ms=times)
    expected = (np.array(times) - 1000) / 1000
    np.testing.assert_allclose(video.times_s(file), expected, atol=1e-3)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_half_a_matroska_file_is_no_shorter_video(suffix: str, tmp_path: Path) -> None:
    codec = "libx264" if suffix == ".mkv" else "libvpx"
    file = write_numbered(tmp_path / f"a{suffix}", FRAMES, codec=codec)
    assert video.num_frames(file) == 30
    data = file.read_bytes()
    for share in (0.5, 0.99):
        file.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BadInput, match=r"cut short \(\d+ bytes are missing\)"):
            video.num_frames(file)


def test_a_live_recording_has_no_size(tmp_path: Path) -> None:
    """Its segment's size is unknown, so nothing can be said to be missing."""
    file = write_numbered(tmp_path / "a.mkv", FRAMES)
    data = bytearray(file.read_bytes())
    place = data.index(bytes.fromhex("18538067")) + 4
    length = 9 - data[place].bit_length()
    data[place : place + length] = (2 ** (7 * length + 1) - 1).to_bytes(length, "big")
    file.write_bytes(data)
    assert video.num_frames(file) == 30


def test_empty_packets_of_an_avi_show_the_frame_before(tmp_path: Path) -> None:
    file = tmp_path / "a.avi"
    kept = [i for i in range(30) if not 10 <= i < 14]
    with av.open(str(file), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
        for index in kept:
            picture = av.VideoFrame.from_ndarray(FRAMES[index], format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    shown = [i if i in kept else 9 for i in range(30)]
    assert video.num_frames(file) == 30
    assert numbers_of(video.read_frames(file)) == shown
    assert numbers_of(video.read_frames(file, 8, 16)) == shown[8:16]
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="truncated at frame"):
        video.num_frames(file)


def test_ten_bits_and_wide_pixels(tmp_path: Path) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    file = write_numbered(
        tmp_path / "a.mp4", FRAMES, codec="libx265", pixels="yuv420p10le", setup=wide
    )
    assert numbers_of(video.read_frames(file)) == list(range(30))
    assert video.pixel_aspect(file) == pytest.approx(4 / 3)


def test_an_edit_list_hides_frames(tmp_path: Path) -> None:
    """As a phone's own cut leaves it: the frames are in the file, and no player shows them."""
    whole = write_numbered(tmp_path / "whole.mp4", FRAMES)
    cut, first = tmp_path / "cut.mp4", 7
    with (
        av.open(str(whole)) as source,
        av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                late = round(first / 10 / stream.time_base)
                packet.pts, packet.dts = packet.pts - late, packet.dts - late
                packet.stream = copied
                out.mux(packet)
    assert b"elst" in cut.read_bytes()
    assert video.num_frames(cut) == 23
    assert numbers_of(video.read_frames(cut)) == list(range(first, 30))
    assert numbers_of(video.read_frames(cut, 10, 13)) == [17, 18, 19]
    found = video.times_s(cut)
    assert found is not None
    np.testing.assert_allclose(found, np.arange(23) / 10, atol=1e-6)


# Images


def test_unpadded_numbers_are_in_numeric_order(tmp_path: Path) -> None:
    for first in (1, 9990):
        folder = tmp_path / str(first) / "frames"
        folder.mkdir(parents=True)
        for number in range(30):
            Image.fromarray(FRAMES[number]).save(folder / f"frame_{first + number:04d}.png")
        (folder / f"._frame_{first}.png").write_bytes(b"\0\5\x16\7")
        assert numbers_of(video.read_source(video.find_source(folder.parent))) == list(range(30))
    for number in range(9):
        (folder / f"frame_{first + number:04d}.png").rename(folder / f"frame_{number + 1}.png")
    (folder / "frame_01.png").write_bytes((folder / "frame_1.png").read_bytes())
    with pytest.raises(BadInput, match=r"frame_01\.png and frame_1\.png are one number"):
        video.find_source(folder.parent)


def test_a_turned_jpeg(tmp_path: Path) -> None:
    for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, -1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        coded = np.ascontiguousarray(np.rot90(FRAMES[5], turns))
        file = tmp_path / f"{orientation}.jpg"
        Image.fromarray(coded).save(file, exif=exif, quality=95)
        assert numbers_of([read_image(file)]) == [5]
        assert image_size(file) == (64, 96)


def test_sixteen_bits_palettes_and_four_colours(tmp_path: Path) -> None:
    grey = FRAMES[5].mean(2).astype(np.uint8)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 1], grey)
    Image.fromarray(FRAMES[5]).convert("P", palette=Image.Palette.ADAPTIVE).save(
        tmp_path / "palette.png"
    )
    Image.fromarray(FRAMES[5]).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Image.fromarray(FRAMES[5]).save(tmp_path / "a_jpeg_in_truth.png", format="JPEG", quality=95)
    for name in ("palette.png", "cmyk.jpg", "a_jpeg_in_truth.png"):
        assert numbers_of([read_image(tmp_path / name)]) == [5]


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    full = np.full((64, 96, 1), 255, np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(np.concatenate([FRAMES[5], full], 2)).save(file)
    assert number_of(read_image(file)) == 5
    full[:24] = 0
    Image.fromarray(np.concatenate([FRAMES[5], full], 2)).save(file)
    with pytest.raises(BadInput, match=r"a\.png: .*transparent pixels"):
        read_image(file)
