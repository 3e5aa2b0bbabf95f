"""Rows survive what happens to files: kills within a row, full disks, steps taken again."""

import json
import resource

import pytest

from training.watch.loggers import JsonlLogger
from training.watch.rows import append_rows, cut_rows, last_values, read_rows


def row(step: int, **values: float) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def test_halves_of_rows_are_left_out_and_only_one_within_the_file_is_said(tmp_path, capsys):
    file = tmp_path / "metrics.jsonl"
    assert read_rows(file) == []
    file.write_text(row(1, a=1.0) + '{"step": 2, "a": 3')
    assert read_rows(file) == [{"step": 1, "a": 1.0}]
    assert capsys.readouterr().out == ""
    file.write_text(row(1) + '{"step": 2, "tim' + row(3) + "[]\n" + '{"a": 1}\n' + row(4))
    assert [r["step"] for r in read_rows(file)] == [1, 4]
    assert "line 2: is no row of metrics; left out (3 so)" in capsys.readouterr().out
    file.write_bytes(row(1).encode() + b"\xff\x00\n" + row(2).encode())
    assert [r["step"] for r in read_rows(file)] == [1, 2]


def test_a_run_that_goes_on_replaces_what_came_after(tmp_path):
    file = tmp_path / "metrics.jsonl"
    cut_rows(file, 0)
    assert not file.exists()
    file.write_text(
        row(1) + row(2, v=1.0) + '{"st' + row(2) + row(3) + row(2, w=1.0) + '{"step": 2'
    )
    cut_rows(file, 2)
    assert file.read_text() == row(1) + row(2, v=1.0) + row(2, w=1.0)
    assert last_values(read_rows(file), "v") == {2: 1.0}
    cut_rows(file, 0)
    assert file.read_text() == ""
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_a_disk_refuses_waits_and_leaves_no_half(tmp_path, capsys):
    """The kernel's limit on the size of a file cuts a write short, as a full disk does."""
    file = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(file)
    logger.log_metrics({"a": 1.0}, 1)
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            append_rows(file, [row(2, b=1.0) * 9])
        logger.log_metrics({"a": 2.0}, 2)
        logger.log_metrics({"a": 3.0}, 3)
        assert file.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().out.count("its rows wait") == 1
    logger.log_metrics({"a": 4.0}, 4)
    assert [r["a"] for r in read_rows(file)] == [1.0, 2.0, 3.0, 4.0]
