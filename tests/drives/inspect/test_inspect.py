"""The inspection of folders: what they are, what is in them, what is wrong, and the lag of rows."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened, overflow, resize

from drives.inspect.__main__ import main
from drives.inspect.findings import Findings, inspect
from drives.inspect.lag import BLOCK, MAX_OFFSET, lag_of
from drives.inspect.takes import evenly, open_path
from drives.tokens.spec import TokenSpec
from drives.tokens.statistics import NOTE, note_statistics
from drives.tokens.writer import TokenStoreWriter
from drives.video import write_video
from drives.writing import write_drive
from training.errors import BadInput

NUM = 560  # frames: five blocks of the lag


def turns(num_frames: int, seed: int = 0) -> np.ndarray:
    """Smooth turns, -1 (left) to 1 (right), that change within about 10 frames."""
    noise = np.random.default_rng(seed).normal(size=num_frames + 20)
    smooth = np.convolve(noise, np.hanning(15), "same")[10 : num_frames + 10]
    return smooth / np.abs(smooth).max()


def scenes(turn: np.ndarray, seed: int = 0):
    """Frames of a wide picture that moves left by 3 pixels per frame in a full right turn."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:48, 0:4096]
    picture = sum(
        rng.uniform(20, 40) * np.sin(rng.uniform(0.05, 0.8) * columns + rng.uniform(-1, 1) * rows)
        for _ in range(12)
    )
    places = 2000 + np.append(0, np.cumsum(3 * turn[:-1]))
    for place in np.rint(places).astype(int):
        grey = np.clip(128 + picture[:, place : place + 96], 0, 255).astype(np.uint8)
        yield np.repeat(grey[..., None], 3, axis=-1)


def write_turning(path: Path, moved: int = 0, fps: float = 10, **meta: object) -> None:
    """A drive whose rows come `moved` rows late."""
    turn = turns(NUM)
    rows = np.stack([np.roll(turn, moved), np.full(NUM, 0.5)], axis=1)
    meta = {"fps": fps, "split": "train", **meta}
    write_drive(path, scenes(turn), rows, ["steering", "throttle"], meta)


def found_at(path: Path, most: int = 100, with_lag: bool = False) -> Findings:
    return inspect(path, open_path(path, most), with_lag)


# Lag


def blocks(offset: int, noise: float, count: int = 8) -> tuple[list, list]:
    rng, motions, rows = np.random.default_rng(1), [], []
    for seed in range(count):
        wide = turns(BLOCK + 2 * MAX_OFFSET, seed)
        place = MAX_OFFSET + offset
        motions.append(wide[place : place + BLOCK] + rng.normal(0, noise, BLOCK))
        rows.append(wide)
    return motions, rows


@pytest.mark.parametrize("offset", [-5, -2, 0, 1, 4])
def test_the_offset_of_rows_is_found_with_its_interval(offset):
    lag = lag_of("steering", *blocks(offset, 0.2))
    assert (lag.offset, lag.low, lag.high, lag.is_sure) == (offset, offset, offset, True)
    assert bool(lag.fault) == (offset != 0)
    assert ("real car" in lag.fault) == (offset < 0)


def test_weak_evidence_says_nothing():
    for motions, rows in (blocks(3, 50.0), blocks(3, 0.2, count=3), ([], [])):
        lag = lag_of("steering", motions, rows)
        assert not lag.is_sure
        assert lag.fault == ""


def test_rows_that_come_late_are_told_and_right_ones_are_not(tmp_path):
    write_turning(tmp_path / "right" / "a")
    write_turning(tmp_path / "late" / "a", moved=2)
    right, late = (found_at(tmp_path / name, with_lag=True) for name in ("right", "late"))
    assert [(lag.offset, lag.is_sure) for lag in right.lags] == [(0, True)]
    assert [(lag.offset, lag.is_sure) for lag in late.lags] == [(2, True)]
    assert not any("rows" in text and "steering" in text for text in right.warnings)
    (fault,) = [text for text in late.warnings if text.startswith("steering")]
    assert "comes 2 rows late" in fault
    assert "fits row t+2; move the rows up" in fault


@pytest.mark.slow
def test_the_real_lake_has_no_lag(shared, tmp_path):
    """Udacity's lake, another driver: rows hold the controls at their frame, and none is moved."""
    found = found_at(shared / "data/udacity/lake_b", with_lag=True)
    (lag,) = found.lags
    assert lag.is_sure
    assert lag.low <= 0 <= lag.high
    assert lag.fault == ""
    assert found.num_read == 1
    assert found.hours == pytest.approx(12955 / 10 / 3600, rel=1e-3)


# Folders


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspected") / "drives"
    write_turning(root / "a", dropped_frames=[[41, 3]])
    rows = np.linspace(0, 1, 20)[:, None]
    frames = [np.full((32, 64, 3), i, np.uint8) for i in range(20)]
    write_drive(root / "b", frames, rows, ["steering"], {"fps": 30, "split": "val"})
    write_drive(root / "c", frames, rows, ["steering"], {"fps": 30, "split": "train"})
    write_drive(root / "d", frames, rows, ["steering"], {"fps": 30})
    (root / "d" / "video.mp4").unlink()
    return root


def test_drives_and_what_is_wrong_with_them(drives):
    found = found_at(drives)
    assert (found.kind, found.num_found, found.num_read) == ("drives", 4, 3)
    assert found.hours == pytest.approx((NUM / 10 + 40 / 30) / 3600)
    assert found.splits == {"train": 2, "val": 1}
    assert found.rates == {"30": 2, "10": 1}
    assert found.sizes == {"32x64": 2, "48x96": 1}
    assert found.gaps == [("a", "3 frames are missing: 3 after frame 41")]
    assert found.actions.names == ("steering",)
    assert sum(found.histograms["steering"]) == NUM + 40
    (problem,) = found.problems
    assert "d: has neither video.mp4 nor frames" in problem
    told = "\n".join(found.warnings)
    for words in ("data.source.fps=10", "several sizes", "left out: throttle", "byte: b, c"):
        assert words in told


def test_one_drive_is_a_folder_as_well(drives):
    found = found_at(drives / "a")
    assert (found.num_found, found.num_read) == (1, 1)
    assert any(text.startswith("throttle has one value") for text in found.warnings)


def test_a_part_of_many_is_spread_evenly(drives):
    assert evenly(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert evenly(list("ab"), 5) == ["a", "b"]
    assert evenly([], 5) == []
    assert found_at(drives, most=2).num_read == 1  # the first, and the last, which is broken


def test_a_token_store(tmp_path):
    spec = TokenSpec((1, 2, 4), 16, 10.0, 1, (32, 64), "test")
    writer = TokenStoreWriter(tmp_path / "store", spec, ["steering"])
    tokens = np.arange(80).reshape(10, 2, 4) % 16
    rows = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
    writer.write("a", "train", tokens, rows, {"dropped_frames": [[4, 2]]})
    found = found_at(tmp_path / "store", with_lag=True)
    assert (found.kind, found.sizes, found.rates) == ("token store", {"32x64": 1}, {"10": 1})
    assert found.gaps == [("a", "2 frames are missing: 2 after frame 4")]
    assert found.lags == []
    assert found.actions.mean == pytest.approx((0,), abs=1e-6)


def test_a_part_of_a_token_store_shows_what_the_store_has_noted_of_all(tmp_path):
    spec = TokenSpec((1, 2, 4), 16, 10.0, 1, (32, 64), "test")
    writer = TokenStoreWriter(tmp_path, spec, ["steering"])
    for number in range(4):
        rows = np.linspace(0, number, 10, dtype=np.float32)[:, None]
        writer.write(f"d{number}", "train", np.zeros((10, 2, 4), np.int64), rows)
    assert found_at(tmp_path, most=2).actions.num_rows == 20
    note_statistics(writer)
    found = found_at(tmp_path, most=2)
    assert (found.num_read, found.actions.num_rows) == (2, 40)
    assert found.actions.mean == pytest.approx((0.75,))
    assert "actions of all 40 train steps" in found.text
    assert "train steps" not in found_at(tmp_path).text
    writer.note(NOTE, {"num_drives": 4})
    assert "statistics of actions are damaged" in found_at(tmp_path).problems[0]


def test_foreign_recordings(tmp_path):
    write_video(tmp_path / "in" / "a.mp4", list(scenes(turns(30))), 10)
    (tmp_path / "in" / "a.csv").write_text("Speed (km/h)\n" + "36\n" * 30)
    found = found_at(tmp_path / "in", with_lag=True)
    assert (found.kind, found.num_read, found.problems) == ("videos", 1, [])
    assert found.actions.names == ("speed_mps",)
    assert found.actions.mean == (10,)
    (tmp_path / "in" / "a.csv").write_text("speed_mps\n" + "36\n" * 29)
    assert "29 rows" in found_at(tmp_path / "in").problems[0]


def test_nothing_known_is_named(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        open_path(tmp_path / "nothing", 1)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no drives, no token store, and none of the formats"):
        open_path(tmp_path, 1)


# The command


def test_the_command_prints_and_writes(drives, tmp_path, capsys):
    files = [tmp_path / name for name in ("found.json", "found.html", "sheet.png")]
    flags = [
        f"--{kind}={file}" for kind, file in zip(("json", "html", "sheet"), files, strict=True)
    ]
    with pytest.raises(SystemExit) as left:
        main([str(drives), *flags, "--duplicates", "--no-lag"])
    assert left.value.code == 2, "a drive there cannot be used"
    with pytest.raises(SystemExit):
        main([str(drives), "--most=0"])
    printed = capsys.readouterr()
    assert "3 after frame 41" in printed.out
    assert "problem: duplicates were not searched for" in printed.out
    assert "--most=0" in printed.err
    values = json.loads(files[0].read_text())
    assert values["actions"]["columns"]["steering"]["quantiles"]["1.0"] == 1
    assert values["num_found"] == 4
    assert files[2].stat().st_size > 1000


def test_the_page_fits_a_phone_and_a_desktop(drives, tmp_path):
    assert main([str(drives / "a"), f"--html={tmp_path / 'page.html'}"]) is None
    with opened(tmp_path / "page.html", PHONE) as page:
        assert overflow(page) <= 0
        text = page.inner_text("body")
        assert "3 after frame 41" in text
        assert "Lag" in text
        assert page.locator("img").count() == 1
        assert page.locator("svg").count() == 3
        resize(page, DESKTOP)
        assert overflow(page) <= 0


def test_copies_in_two_splits_are_told(tmp_path, capsys):
    turn = turns(80)
    for name, split in (("a", "train"), ("b", "val")):
        rows = turn[:, None]
        write_drive(
            tmp_path / "in" / name, scenes(turn), rows, ["steering"], {"fps": 10, "split": split}
        )
    main([str(tmp_path / "in"), "--duplicates", "--no-lag", f"--cache={tmp_path / 'cache'}"])
    printed = capsys.readouterr().out
    assert "the same footage is in two splits: a (train) frames 0-79 and b (val)" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--json=there/a.json"], "--json=there/a.json: exists already; nothing is overwritten"),
        (["--html=there"], "--html=there: is a folder; name a file"),
        (["--html=there/a.json/b.html"], "there/a.json is a file; choose another place"),
        (["--sheet=x.csv"], "--sheet=x.csv: is a picture; give it a name that ends in .png"),
        (["--json=a", "--html=./a"], "--html=a: is that of --json as well; name two files"),
        (["--json="], "--json=.: is a folder"),
        (["--duplicates", "--cache=there/a.json"], "--cache=there/a.json: "),
    ],
)
def test_places_are_judged_before_the_work(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a.json").write_text("kept")
    monkeypatch.setattr("drives.inspect.__main__.open_path", None)  # not called
    with pytest.raises(SystemExit) as stopped:
        main(["drives", *flags])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "a.json"]
    assert (tmp_path / "there/a.json").read_text() == "kept"


def test_folders_of_the_files_are_made(tmp_path):
    write_video(tmp_path / "in" / "a.mp4", list(scenes(turns(30))), 10)
    flags = [f"--json={tmp_path / 'new/deep/a.json'}", f"--sheet={tmp_path / 'other/a.PNG'}"]
    main([str(tmp_path / "in"), *flags, "--no-lag"])
    assert json.loads((tmp_path / "new/deep/a.json").read_text())["num_read"] == 1
    assert (tmp_path / "other/a.PNG").read_bytes()[1:4] == b"PNG"


def test_a_rate_that_files_do_not_say_can_be_given(shared, tmp_path):
    with tarfile.open(shared / "data/donkeycar/tub.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert "give --fps" in open_path(tmp_path, 9).problems[0]
    opened = open_path(tmp_path, 9, fps=20)
    assert not opened.problems
    assert sum(take.num_frames for take in opened.takes) == 1000
    assert {take.fps for take in opened.takes} == {20}
