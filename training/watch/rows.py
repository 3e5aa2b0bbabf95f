"""Rows of a run: JSON lines with a `step`, written during training.

    metrics.jsonl    every metric
    doctor.jsonl     what the doctor found and did

A process may die within a row, and a resumed run repeats steps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.disk.plain_json import number
from training.disk.records import write_durably

METRICS_FILE, FINDINGS_FILE = "metrics.jsonl", "doctor.jsonl"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, in order; none where there is no file.

    Skips a last line cut by a kill. Skips any other invalid line with a warning.
    """
    if not file.is_file():
        return []
    lines = file.read_bytes().splitlines(keepends=True)
    rows = [_row(line) for line in lines]
    bad = [n for n, (line, row) in enumerate(zip(lines, rows, strict=True), start=1) if not row]
    named = [number for number in bad if lines[number - 1].endswith(b"\n")]
    if named:
        print(f"warning: {file}, line {named[0]}: is no row of metrics; left out ({len(named)} so)")
    return [row for row in rows if row]


def append_rows(file: Path, lines: Sequence[str]) -> None:
    """Append all lines or none.

    Raises:
        OSError: they cannot be written, as on a full disk; the file is unchanged.
    """
    with file.open("ab", buffering=0) as handle:
        before = handle.tell()
        content = "".join(lines).encode()
        try:
            if (written := handle.write(content)) != len(content):
                handle.write(content[written:])  # raises the reason
        except OSError:
            handle.truncate(before)
            raise


def cut_rows(file: Path, step: int) -> None:
    """Remove the rows after `step`, where a run resumes, and partial rows."""
    if not file.is_file():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (row := _row(line)) and row["step"] <= step]
    if kept != lines:
        write_durably(file, b"".join(kept))


def last_values(rows: Sequence[dict[str, Any]], metric: str) -> dict[int, float]:
    """A metric by step, NaN where it is null; the last value of a repeated step."""
    return {row["step"]: number(row[metric]) for row in rows if metric in row}


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return {**row, "step": int(row["step"])} if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
