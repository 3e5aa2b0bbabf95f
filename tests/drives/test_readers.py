"""Files that are not what they should be: each ends in BadInput that names the file."""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from commavq_files import make_segments, packed, write_tar
from PIL import Image

from drives.clips.frame_cache import DriveFrames
from drives.drive import open_drive
from drives.folder import open_drives
from drives.importers.recordings.steering import udacity
from drives.importers.tokens.commavq_segments import list_segments, read_segments
from drives.video import read_frames
from drives.video.images import read_image
from drives.writing import write_drive
from training.errors import BadInput, CorruptSample


def read_archive(path: Path) -> list[str]:
    return list_segments([path]) and [segment.name for segment in read_segments([path])]


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A drive of four images."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    folder = tmp_path / "a"
    write_drive(folder, frames, np.zeros((4, 1), np.float32), ("steering",), {"fps": 10})
    (folder / "video.mp4").unlink()
    (folder / "frames").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frames/{index}.png")
    return folder


def in_place_of(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def a_folder(path: Path) -> None:
    (path / "drive.json").unlink()
    (path / "drive.json").mkdir()


def a_dead_link(name: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        (path / name).unlink()
        (path / name).symlink_to(path / name)

    return make


def parquet_of_text(path: Path) -> None:
    table = pyarrow.table({"steering": [["a"], ["b"], ["c"], ["d"]]})
    pyarrow.parquet.write_table(table, path / "actions.parquet")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("drive.json", a_folder),
        ("drive.json", a_dead_link("drive.json")),
        ("drive.json", in_place_of("drive.json", "[" * 100_000)),
        ("drive.json", in_place_of("drive.json", '{"fps": 10}'.encode("utf-16"))),
        ("drive.json", in_place_of("drive.json", b'{"fps": 10, "source": "Stra\xdfe"}')),
        ("actions.csv", a_dead_link("actions.csv")),
        ("actions.csv", in_place_of("actions.csv", b"Stra\xdfe\n0\n0\n0\n0\n")),
        ("actions.csv", in_place_of("actions.csv", "steering\n0\n0\n0\n0\n".encode("utf-16"))),
        ("actions.parquet", parquet_of_text),
        ("0.png", a_dead_link("frames/0.png")),
        ("2.png", in_place_of("frames/2.png", b"\x89PNG\r\n\x1a\n")),
    ],
)
def test_a_drive_that_cannot_be_read(drive: Path, file: str, change: Callable) -> None:
    change(drive)
    with pytest.raises(BadInput, match=file):
        open_drives(drive.parent)


def large_png(side: int) -> bytes:
    """A header that states `side` x `side` pixels, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(b"\0" * 100)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [12_000, 30_000])
def test_an_image_of_too_many_pixels(side: int, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(large_png(side))
    with pytest.raises(BadInput, match=r"large\.png"):
        read_image(tmp_path / "large.png")


def test_an_image_that_changed_its_size_is_a_corrupt_sample(drive: Path) -> None:
    opened = open_drive(drive)
    Image.new("RGB", (20, 16)).save(drive / "frames/2.png")
    with pytest.raises(CorruptSample, match="frame 2 is 16x20, frame 0 is 16x16"):
        _ = DriveFrames(opened, (16, 16))[0:4]


@pytest.mark.parametrize("path", ["\0", "x" * 3000, "IMG/center_2016_12_01_23_59_59_100.jpg"])
def test_a_log_of_images_that_are_not_there(path: str, tmp_path: Path) -> None:
    (tmp_path / "driving_log.csv").write_text(f"{path},b,c,0,0,0,1\n" * 2)
    with pytest.raises(BadInput, match=r"driving_log\.csv"):
        udacity.FORMAT.recordings(tmp_path)


def test_a_video_of_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    write_drive(tmp_path / "a", frames, np.zeros((4, 0), np.float32), (), {"fps": 10})
    video = tmp_path / "a/video.mp4"
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(BadInput, match=r"video\.mp4"):
        list(read_frames(video))


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


DTYPE = "{'descr': '<i2', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': "),
        npy("("),
        npy("[" * 3000),
        npy("{'descr': ['<i2', 1], 'fortran_order': False, 'shape': (1,)}"),
        npy(DTYPE % "(4611686018427387904, 8, 16)"),
        npy(DTYPE % "(-1, 8, 16)"),
        npy(DTYPE % "(2, 8, 16)", b"\0" * 511),
        npy(DTYPE % "(2, 8, 16)", b"\0" * 513),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 8, 16)}"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["a.token.npy", "a.tar"])
def test_arrays_that_are_none(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.tar":
        write_members(path, {"a.token.npy": content})
    else:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.token\.npy"):
        list(read_segments([path]))


def write_members(path: Path, members: dict[str, bytes], **header: object) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in header.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(raw.getvalue() if path.suffix == ".tar" else gzip.compress(raw.getvalue(), 1))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    return write_tar(path, make_segments(3, 4)).read_bytes()


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_archive_whose_headers_are_damaged_is_refused(
    suffix: str, archive: bytes, tmp_path: Path
) -> None:
    """Each header in turn: one bit of it, then all of it gone, then one block too many."""
    path = tmp_path / f"a.{suffix}"
    headers = [i for i in range(0, len(archive), 512) if archive[i : i + 7] == b"segment"]
    assert len(headers) == 9
    for place in headers:
        flipped = bytearray(archive)
        flipped[place + 124] ^= 1
        for damaged in (
            bytes(flipped),
            archive[:place] + archive[place + 512 :],
            archive[:place] + bytes(512) + archive[place:],
        ):
            path.write_bytes(damaged if suffix == "tar" else gzip.compress(damaged, 1))
            with pytest.raises(BadInput, match=rf"a\.{suffix}"):
                list_segments([path])


def test_an_archive_goes_to_its_end_mark_and_no_further(archive: bytes, tmp_path: Path) -> None:
    path, end = tmp_path / "a.tar", len(archive.rstrip(b"\0"))
    end = -(-end // 512) * 512
    for content in (archive[:end], archive[: end + 512], archive + archive, archive + b"x" * 512):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.tar"):
            list_segments([path])
    path.write_bytes(archive[: end + 1024])
    assert len(list_segments([path])) == 3


def test_a_large_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A header of 1 GB: tarfile would read on for it, and the array's reader hold it in memory."""
    info = tarfile.TarInfo("a.token.npy")
    info.size = 1 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(2048))
    with pytest.raises(BadInput, match="1073741824 bytes"):
        list_segments([tmp_path / "a.tar"])
    # One that may be that long, but not as a segment.
    frames = packed(np.zeros((300_000, 8, 16), np.uint8))
    write_members(tmp_path / "b.tar.gz", {"b.token.npy": frames})
    with pytest.raises(BadInput, match="300000 frames"):
        list(read_segments([tmp_path / "b.tar.gz"]))


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", {f"{'n' * 300}.token.npy": b""})
    with pytest.raises(BadInput, match="a name of 310 characters"):
        list_segments([tmp_path / "a.tar"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", {"a.token.npy": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(BadInput, match="neither a file nor a folder"):
        read_archive(tmp_path / "a.tar")
