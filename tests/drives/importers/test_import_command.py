"""The command of the importers: its arguments, its errors, the formats that it reaches."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from numbered_frames import numbered
from recordings import comma_tokens, udacity_folder, video_recording

from drives import video
from drives.drive import open_drive
from drives.folder import open_drives
from drives.importers.__main__ import main
from drives.importers.flags import add_flags, options_of
from drives.importers.formats import recognised
from drives.importers.recording import ImportOptions
from drives.tokens.store import TokenStore


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`command("videos", ...)`: exit code and what it printed."""

    def run(*arguments: object) -> Any:
        code = 0
        try:
            main([*map(str, arguments)])
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=shown.out, stderr=shown.err)

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "nan", "0", "1"], "splits"),
        (["--split", "-1", "1", "1"], "splits"),
        (["--size", "0", "8"], "size"),
        (["--size", "1000000000000", "8"], "size"),
        (["--num-workers", "-1"], "num_workers"),
    ],
)
def test_arguments_are_judged_before_any_recording_is_looked_for(options, words, tmp_path, capsys):
    for place, said in ((tmp_path / "out", words), ("", "out=''"), ("/proc/out", "out=/proc/out")):
        with pytest.raises(SystemExit) as end:
            main(["videos", "nowhere", str(place), *options])
        shown = capsys.readouterr().err
        assert end.value.code == 2
        assert shown.startswith(f"error: {said}")
        assert shown.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_command_imports_and_refuses(tmp_path: Path, command: Callable[..., Any]) -> None:
    video_recording(tmp_path / "in")
    options = ("--size", 16, 24, "--split", 0.5, 0.25, 0.25, "--num-workers", 0)
    good = command("videos", tmp_path / "in", tmp_path / "out", *options, "--licence", "CC0")
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines() == [
        str(tmp_path / f"out/a-{split}") for split in ("train", "val", "test")
    ]
    drive = open_drive(tmp_path / "out/a-val")
    assert drive.num_frames == 15
    assert drive.check_frames() == (16, 24)
    assert drive.meta["licence"] == "CC0"
    bad = command("udacity", tmp_path / "in", tmp_path / "out")
    assert bad.returncode == 2
    assert bad.stderr == (
        f"error: {tmp_path / 'in'}: no driving_log.csv there or one folder below; give its folder\n"
    )


def test_the_command_reaches_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    udacity_folder(tmp_path / "lap")
    main(["udacity", str(tmp_path / "lap"), str(tmp_path / "a"), "--num-workers", "0"])
    assert len(open_drives(tmp_path / "a")) == 3
    np.save(tmp_path / "tokens.npy", comma_tokens())
    counts = ["--num-train", "40", "--num-test", "15"]
    main(["commavq", str(tmp_path / "tokens.npy"), str(tmp_path / "b"), *counts])
    assert len(TokenStore(tmp_path / "b").drives("train")[0].tokens) == 40
    with pytest.raises(SystemExit) as error:
        main(["commavq", str(tmp_path / "tokens.npy"), str(tmp_path / "b")])
    assert error.value.code == 2
    assert "fit in" in capsys.readouterr().err


def test_what_cannot_be_used_is_left_out_and_told(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    """A table of another length, a cut video and one that is too short; the fourth goes in."""
    for name in "abc":
        video_recording(tmp_path / "src", name)
    (tmp_path / "src/a.csv").write_text("steering\n0\n")
    whole = (tmp_path / "src/b.mp4").read_bytes()
    video.write_video(tmp_path / "src/d.mp4", numbered(4), 10)
    (tmp_path / "src/d.csv").write_text("steering\n" + "0\n" * 4)
    (tmp_path / "src/b.mp4").write_bytes(whole[:2000] + bytes(1500) + whole[3500:])
    stopped = command("videos", tmp_path / "src", tmp_path / "out", "--num-workers", 0)
    assert (stopped.returncode, (tmp_path / "out").exists()) == (2, False)
    arguments = ("videos", tmp_path / "src", tmp_path / "out", "--num-workers", 0)
    skipped = command(*arguments, "--on-bad", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert [Path(line).name for line in skipped.stdout.split()] == ["c-train", "c-val", "c-test"]
    told = [line for line in skipped.stderr.splitlines() if line.startswith("left out: ")]
    assert len(told) == 3
    assert all(any(f"{name}" in line for line in told) for name in ("a.csv", "b.mp4", "d: its 4"))


def test_flags_are_the_fields_of_the_options() -> None:
    @dataclass(frozen=True)
    class Options(ImportOptions):
        """Settings.

        Attributes:
            fps: the rate, 100 % yours.
            camera: which one.
            side: either, or none.
            fast: a switch.
        """

        fps: float | None = None
        camera: Literal["left", "right"] = "left"
        side: Literal["left", "right"] | None = None
        fast: bool = False

    parser = argparse.ArgumentParser()
    add_flags(parser, Options)
    assert options_of(parser.parse_args([]), Options) == Options()
    args = parser.parse_args(["--fps", "20", "--camera", "right", "--fast", "--licence", "MIT"])
    assert options_of(args, Options) == Options("MIT", 20.0, "right", fast=True)
    assert options_of(parser.parse_args(["--side=left"]), Options) == Options(side="left")
    with pytest.raises(SystemExit):
        parser.parse_args(["--side=up"])
    assert "the rate, 100 % yours." in parser.format_help()


def test_formats_are_recognised_by_their_files(tmp_path: Path) -> None:
    assert recognised(tmp_path) is None
    assert recognised(udacity_folder(tmp_path / "lap")) == "udacity"
    assert recognised(video_recording(tmp_path / "films")) == "videos"
