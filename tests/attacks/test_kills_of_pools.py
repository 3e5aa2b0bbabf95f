"""Commands with worker processes, killed at any moment and started again at once.

Nothing of the killed one lives on, the second start does all of the work, and nothing is left over.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from killing import descendants, finish, kill, start, survivors, until
from PIL import Image

from drives import video
from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive, make_drives
from drives.folder import open_drives
from drives.tokens.store import TokenStore
from drives.writing import write_drive

RANDOM_KILLS = 6
DRIVES = """
from pathlib import Path
import sys
from drives.carracing.drives import CarRacingConfig, make_drives
if __name__ == "__main__":
    config = CarRacingConfig(num_train=4, num_val=1, num_test=1, seconds=2.0)
    make_drives(Path(sys.argv[1]), config, num_workers=2)
"""


def film(path: Path, num_frames: int = 90) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((160, 96), Image.Resampling.BILINEAR))
    video.write_video(path, (np.roll(picture, 3 * i, axis=1) for i in range(num_frames)), 10)
    rows = "\n".join(str(i / num_frames) for i in range(num_frames))
    path.with_suffix(".csv").write_text(f"steering\n{rows}\n")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for name in "ab":
        film(folder / f"{name}.mp4")
    return folder


@pytest.fixture(scope="module")
def drives(tmp_path_factory) -> Path:
    """Enough frames for two workers of the encoder."""
    root = tmp_path_factory.mktemp("drives")
    config = CarRacingConfig(num_train=2, num_val=0, num_test=0, seconds=6.0)
    for index in range(2):
        frames, actions, meta = make_drive(config, index)
        longer = 35
        write_drive(
            root / f"drive-{index}",
            np.tile(frames, (longer, 1, 1, 1)),
            np.tile(actions, (longer, 1)),
            ACTION_NAMES,
            {**meta, "split": "train"},
        )
    return root


Case = tuple[list[str], Callable[[Path], object], Callable[[Path], object]]


@pytest.fixture
def case(request, tmp_path) -> Case:
    """A command, whether it has begun to write into a folder, and a check of the folder."""
    if request.param == "importer":
        out, recordings = tmp_path / "out", request.getfixturevalue("recordings")
        command = ["-m", "drives.importers", "videos", str(recordings), str(out)]

        def whole(out: Path) -> None:
            assert len(open_drives(out)) == 6
            for drive in open_drives(out):
                drive.check_frames()

        return [*command, "--num-workers", "2"], lambda: any(out.glob(".*.partial")), whole
    if request.param == "carracing":
        script, out = tmp_path / "script.py", tmp_path / "out"
        script.write_text(DRIVES)

        def same(out: Path) -> None:
            alone = tmp_path / "alone"
            make_drives(alone, CarRacingConfig(0, 4, 1, 1, seconds=2.0), num_workers=0)
            for one, two in zip(open_drives(out), open_drives(alone), strict=True):
                assert np.array_equal(one.actions, two.actions)
                one.check_frames()

        return [str(script), str(out)], lambda: any(out.glob(".*.partial")), same
    out, drives = tmp_path / "out", request.getfixturevalue("drives")
    command = ["-m", "tokenizer.encode", f"data.root={drives}", f"out={out}", "num_workers=2"]

    def encoded(out: Path) -> None:
        assert [len(d.tokens) for d in TokenStore(out).drives("train")] == [2100, 2100]

    return command, lambda: encoding(), encoded


def encoding() -> bool:
    """Whether a command that was started here has begun two workers."""
    return any(len(descendants(pid)) >= 3 for pid in descendants(os.getpid()))


def killed_and_started_again(case: Case, after_s: float, out: Path) -> None:
    command, begun, check = case
    process = start(command)
    until(begun, process)
    time.sleep(after_s)
    below = kill(process)
    finish(start(command))
    assert survivors(below) == []  # one may have been importing torch until now
    check(out)
    assert [p.name for p in out.iterdir() if "partial" in p.name] == []


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("carracing", marks=pytest.mark.slow),
        pytest.param("importer", marks=pytest.mark.attack),
        pytest.param("encode", marks=pytest.mark.attack),
    ],
    indirect=True,
)
def test_the_same_command_at_once_does_all_of_the_work(case, tmp_path):
    killed_and_started_again(case, 0.05, tmp_path / "out")


@pytest.mark.attack
@pytest.mark.parametrize("case", ["carracing", "importer", "encode"], indirect=True)
@pytest.mark.parametrize("moment", range(RANDOM_KILLS))
def test_killed_at_a_random_moment(case, tmp_path, moment):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    killed_and_started_again(case, random.Random(seed).uniform(0, 1.5), tmp_path / "out")
