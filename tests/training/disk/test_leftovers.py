"""Names of what is being written: each writer has its own, and a dead writer's are swept."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from training.disk.leftovers import partial_of, sweep_leftovers, written_whole

WRITER = """
import sys, time
from pathlib import Path
from training.disk.leftovers import partial_of
folder = partial_of(Path(sys.argv[1]) / "drive")
folder.mkdir()
(folder / "video.mp4").write_bytes(b"half")
print("there", flush=True)
time.sleep(60)
"""


def test_a_killed_writers_files_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    mine = partial_of(tmp_path / "drive")
    mine.write_text("half")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "there\n"
        theirs = set(tmp_path.iterdir()) - {mine}
        assert len(theirs) == 1, "two writers of one drive have two names"
        assert sweep_leftovers(tmp_path) == []
        writer.kill()
    assert sweep_leftovers(tmp_path, "other.*") == []
    assert set(sweep_leftovers(tmp_path, "drive.*")) == theirs
    assert list(tmp_path.iterdir()) == [mine]


def test_a_process_id_used_again_is_no_owner(tmp_path: Path) -> None:
    mine = partial_of(tmp_path / "drive")
    old = mine.with_name(mine.name.replace(f"@{os.getpid()}-", f"@{os.getpid()}-1"))
    old.write_text("half")
    assert sweep_leftovers(tmp_path) == [old]


def test_what_has_no_owner_here_goes_after_a_day(tmp_path: Path) -> None:
    (tmp_path / ".drive.otherhost@1-1.partial").mkdir()
    (tmp_path / ".drive.partial").mkdir()
    assert sweep_leftovers(tmp_path) == []
    for path in tmp_path.iterdir():
        os.utime(path, (0, time.time() - 25 * 3600))
    assert len(sweep_leftovers(tmp_path)) == 2


def test_what_is_not_written_whole_is_not_there(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), written_whole(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with written_whole(tmp_path / "b") as partial:
        partial.write_text("whole")
    assert (tmp_path / "b").read_text() == "whole"
