"""Inputs that people really have (cases/ in DASHCAST_SHARED): each is read right or refused by
name. The scripts write frames that carry their number; row i of a table has steering i / 1000."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered import number_of, numbers_of

from drives.drive import open_drive
from drives.folder import open_drives
from drives.importers.base import import_recordings
from drives.importers.formats import RECORDING_FORMATS
from drives.importers.recording import Recording
from drives.video.gaps import Drop
from training.errors import BadInput

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("DASHCAST_SHARED", ROOT.parent / "shared"))
FFMPEG = os.environ.get("FFMPEG") or shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg on the path, nor in FFMPEG")


@pytest.fixture
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder that a script of cases/ fills."""
    number: str = request.param
    scripts = list((SHARED / "cases").glob(f"{number}_*.py"))
    if not scripts:
        pytest.skip(f"no {SHARED}/cases")
    environment = {
        **os.environ,
        **{"CASES_OUT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "FFMPEG": FFMPEG or ""},
    }
    subprocess.run([sys.executable, str(scripts[0])], check=True, cwd=tmp_path, env=environment)
    return tmp_path / number


def read(format: str, folder: Path, **options: Any) -> list[Recording]:
    return RECORDING_FORMATS[format].recordings(folder, **options)


def to_drives(recordings: list[Recording], out: Path) -> list[Path]:
    return import_recordings(recordings, out, splits=(1, 0, 0))


def assert_aligned(recording: Recording, half_a_row: bool = False) -> list[int]:
    """Frames upright and each beside its own row; their numbers."""
    numbers = numbers_of(recording.read(0, len(recording.actions)))
    steering = recording.actions[:, recording.action_names.index("steering")] * 1000
    np.testing.assert_allclose(steering, np.array(numbers) + 0.5 * half_a_row, atol=1e-4)
    return numbers


@needs_ffmpeg
@pytest.mark.parametrize("case", ["01"], indirect=True)
def test_01_a_turned_phone(case: Path) -> None:
    (recording,) = read("videos", case / "in")
    assert assert_aligned(recording) == list(range(30))


@pytest.mark.parametrize("case", ["03"], indirect=True)
def test_03_a_variable_rate(case: Path, tmp_path: Path) -> None:
    (recording,) = read("videos", case / "in")
    assert assert_aligned(recording) == [*range(15), *range(20, 60)]
    assert (recording.fps, recording.drops) == (10, (Drop(14, 5),))
    (path,) = to_drives([recording], tmp_path / "out")
    assert open_drive(path).drops == [Drop(14, 5)], "the gap is known after import"
    with pytest.raises(
        BadInput, match=r"b\.mp4: its rate varies: steps from 0.066 to 0.200 s; give --fps"
    ):
        read("videos", case / "in2")
    (picked,) = read("videos", case / "in2", fps=5)
    numbers = numbers_of(picked.read(0, len(picked.actions)))
    assert (picked.fps, picked.drops) == (5, ())
    assert numbers[:31] == list(range(31))
    assert set(np.diff(numbers[30:])) <= {2, 3}, "15 fps by threes"
    until_the_next = [np.mean(range(a, b)) for a, b in pairwise(numbers)]
    np.testing.assert_allclose(picked.actions[:-1, 0] * 1000, until_the_next, atol=1e-4)


@needs_ffmpeg
@pytest.mark.parametrize("case", ["04"], indirect=True)
def test_04_a_raw_stream_without_a_rate(case: Path) -> None:
    with pytest.raises(BadInput, match=r"video\.hevc: does not state its rate; give --fps"):
        read("videos", case / "in")
    for folder, options in (("in", {"fps": 20.0}), ("in_t", {})):
        (recording,) = read("videos", case / folder, **options)
        assert assert_aligned(recording) == list(range(40))
        assert recording.fps == pytest.approx(20)


@pytest.mark.parametrize("case", ["05"], indirect=True)
def test_05_unpadded_names(case: Path) -> None:
    for folder, count in (("root", 30), ("root4", 20)):
        drive = open_drive(case / folder / "drive0")
        assert numbers_of(drive.frames()) == list(range(count))
        (drive.path / "drive.json").unlink()  # else they are no recordings
        (recording,) = read("frames", case / folder, fps=10.0)
        assert assert_aligned(recording) == list(range(count))


@pytest.mark.parametrize("case", ["06"], indirect=True)
def test_06_odd_images(case: Path) -> None:
    for name in ("palette", "exif", "cmyk"):
        assert numbers_of(open_drive(case / "root" / name).frames()) == list(range(8))
    sixteen, eight = (
        np.stack(list(open_drive(case / "root" / name).frames())).astype(int)
        for name in ("grey16", "grey8")
    )
    assert np.abs(sixteen - eight).max() <= 1
    with pytest.raises(BadInput, match=r"0000\.png: .*transparent"):
        next(open_drive(case / "root" / "alpha").frames())


@needs_ffmpeg
@pytest.mark.parametrize("case", ["09"], indirect=True)
def test_09_broken_files(case: Path, tmp_path: Path) -> None:
    refused = {
        "zero": r"a\.mp4: cannot be read as a video",
        "half": r"a\.mp4: cannot be read as a video",
        "half_mkv": r"a\.mkv: .* cut short",
        "half_faststart": r"a\.mp4: truncated at frame \d+ of 60",
        "two_sizes": r"60 rows, but a\.mkv has \d+ frames|two_sizes",
    }
    for name, message in refused.items():
        for frames_alone in (False, True):
            with pytest.raises(BadInput, match=r"a\.m" if frames_alone else message):
                to_drives(read("videos", case / name, frames_alone=frames_alone), tmp_path / name)
    (whole,) = read("videos", case / "macos")
    assert assert_aligned(whole) == list(range(60))
    (repeating,) = read("videos", case / "avi_gap")
    shown = [19 if 20 <= i < 25 else i for i in range(60)]
    assert numbers_of(repeating.read(0, 60)) == shown


@pytest.mark.parametrize("case", ["10"], indirect=True)
def test_10_tables(case: Path) -> None:
    controls, alone = ("steering", "throttle"), ("steering",)
    whole = {
        **dict.fromkeys(
            ("plain", "bom", "utf16", "crlf_trailing_blank", "spaces_in_header"), controls
        ),
        **dict.fromkeys(("semicolon_decimal_comma", "pandas_index", "comment_line"), controls),
        **dict.fromkeys(
            ("frame_and_unix_time", "timestamp_ns", "iso_time", "timestamp_s_col"), alone
        ),
        **dict.fromkeys(
            ("kmh_spaces_capitals", "speed_kph", "spaces_speed"), (*alone, "speed_mps")
        ),
        "booleans": ("steering", "brake"),
    }
    for name, columns in whole.items():
        (recording,) = read("videos", case / name)
        assert recording.action_names == columns, name
        assert assert_aligned(recording) == list(range(30)), name
        assert recording.fps == 10
        if columns[1:] == ("speed_mps",):
            speed = 30 * 0.44704 if name == "spaces_speed" else 10
            np.testing.assert_allclose(recording.actions[:, 1], speed)
    refused = {
        "no_header": r"a.csv: begins with numbers \(0.0, 0.5\) .*--columns",
        "nan_cell": "a.csv: row 5, column 'throttle' is nan",
        "thousands": "a.csv: row 0, column 'speed_kmh' holds '1,000'",
        "degrees_steering": "a.csv: row 2, steering is 2, outside .*--lock-deg",
        "empty": "a.csv: is empty",
        "header_only": "a.csv: has no rows",
    }
    for name, message in refused.items():
        with pytest.raises(BadInput, match=message):
            read("videos", case / name)
    (joined,) = read("videos", case / "hundred_hertz")
    numbers = numbers_of(joined.read(0, 30))
    # The mean of 100 Hz until the next frame lies half a frame later; the last row ends the log.
    np.testing.assert_allclose(joined.actions[:-1, 0] * 1000, np.array(numbers[:-1]) + 0.5)
    (named,) = read("videos", case / "no_header", columns="steering,throttle")
    assert assert_aligned(named) == list(range(30))
    (turned,) = read("videos", case / "degrees_steering", lock_deg=100.0, positive_is="right")
    np.testing.assert_allclose(turned.actions[:, 0], np.arange(30) / 100)


@pytest.mark.parametrize("case", ["11"], indirect=True)
def test_11_udacity_logs(case: Path) -> None:
    whole = ["plain", "windows", "windows_cp1252", "header_reordered", "excel_bom"]
    for name in whole:
        (recording,) = read("udacity", case / name)
        assert assert_aligned(recording) == list(range(40)), name
        assert (recording.fps, recording.drops) == (10, [])
    for name in ("decimal_comma", "decimal_comma_semicolon"):
        (recording,) = read("udacity", case / name)
        np.testing.assert_allclose(recording.actions[:, 0], -np.arange(40) / 10000)
        np.testing.assert_allclose(recording.actions[:, 3], 12.1822 * 0.44704)
    later, earlier = read("udacity", case / "appended_twice")
    assert assert_aligned(later) == list(range(20, 40))
    assert assert_aligned(earlier) == list(range(20))
    (holed,) = read("udacity", case / "dropped_bad_rows")
    assert assert_aligned(holed) == [*range(15), *range(22, 40)]
    assert holed.drops == [Drop(14, 7)]
    with pytest.raises(BadInput, match=r"700\.jpg: .*missing.*--on-missing=gap"):
        read("udacity", case / "missing_one")
    (gap,) = read("udacity", case / "missing_one", on_missing="gap")
    assert assert_aligned(gap) == [*range(7), *range(8, 40)]
    assert gap.drops == [Drop(6, 1)]
    with pytest.raises(BadInput, match="none of its 40 images is there"):
        read("udacity", case / "img_elsewhere")
    with pytest.raises(BadInput, match=r"row 0, throttle is -0\.5"):
        read("udacity", case / "negative_throttle")
    (tiny,) = read("udacity", case / "scientific")
    np.testing.assert_allclose(tiny.actions[:, 0], 1.5e-05)


@pytest.mark.parametrize("case", ["12"], indirect=True)
def test_12_two_rates_of_one_phone(case: Path) -> None:
    rates = [recording.fps for recording in read("videos", case / "in")]
    assert rates == pytest.approx([29.97, 30.04], abs=0.01)
    for recording in read("videos", case / "in", fps=30.0):
        assert (recording.fps, recording.drops) == (30, ())
        assert assert_aligned(recording) == list(range(60))


@pytest.mark.parametrize("case", ["13"], indirect=True)
def test_13_one_drive_spells_throttle(case: Path, tmp_path: Path) -> None:
    recordings = read("videos", case / "in")
    assert {recording.action_names for recording in recordings} == {("steering", "throttle")}
    to_drives(recordings, tmp_path / "out")
    assert {drive.action_names for drive in open_drives(tmp_path / "out")} == {
        ("steering", "throttle")
    }


@pytest.mark.parametrize("case", ["14"], indirect=True)
def test_14_no_header_and_one_row_more(case: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.csv: begins with numbers"):
        read("videos", case / "in")
    with pytest.raises(BadInput, match=r"31 rows, but a\.mp4 has 30 frames"):
        read("videos", case / "in", columns="steering,throttle")
    drive = tmp_path / "root/a"
    drive.mkdir(parents=True)
    shutil.copy(case / "in/a.mp4", drive / "video.mp4")
    shutil.copy(case / "in/a.csv", drive / "actions.csv")
    (drive / "drive.json").write_text('{"fps": 10}')
    with pytest.raises(BadInput, match=r"actions\.csv: .*has no header"):
        open_drive(drive)


@pytest.mark.parametrize("case", ["16"], indirect=True)
def test_16_an_index_column_is_no_action(case: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    recordings = read("videos", case / "in")
    assert {recording.action_names for recording in recordings} == {("steering",)}
    assert [number_of(next(iter(r.read(0, 1)))) for r in recordings] == [0] * 4
    assert "'', 'timestamp' left out: no actions" in caplog.text
