"""Runs the parts one after the other and writes the table after every row."""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import Row
from benchmarks.gpu.parts import PARTS
from training.pages.text_table import markdown_table
from training.watch.results import ROOT, append

RESULTS = ROOT / "docs" / "results.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu")
    parser.add_argument("--out", type=Path, help="file that has the table after every row")
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    parser.add_argument("--seconds", type=float, default=480, help="for all parts together")
    parser.add_argument("--rows", default=",".join(PARTS), help="names of parts, with commas")
    parser.add_argument("--toy", action="store_true", help="small sizes, on a CPU")
    args = parser.parse_args(arguments)
    names = args.rows.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        print(f"no part {unknown[0]!r}; choose from {', '.join(PARTS)}", file=sys.stderr)
        return 2
    report = Report(args.out)
    for found in measured(names, args.seconds, args.toy):
        report.add(found)
    if args.write:
        append(report.text(), RESULTS)
    return 0


class Report:
    """The table and the notes so far; in a file after every row, where one is given."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.heading = file, ""
        self.rows: list[Row] = []
        self.notes: list[str] = []

    def add(self, found: Row | str) -> None:
        """Take a row, or a note; the first note is the heading."""
        if isinstance(found, Row):
            self.rows.append(found)
            print(f"{found.name}: {found.ours} against {found.theirs}", flush=True)
        elif not self.heading:
            self.heading = found
        elif found != self.heading:  # every process tells it
            self.notes.append(found)
            print(found, flush=True)
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(self.text())

    def text(self) -> str:
        cells = [[r.name, r.ours, r.theirs, _ratio(r.ratio), _goal(r.goal)] for r in self.rows]
        table = markdown_table(["measurement", "ours", "against", "ratio", "goal"], cells)
        return "\n\n".join([self.heading, table, *self.notes]) + "\n"


def _ratio(ratio: float) -> str:
    return "" if ratio != ratio else f"{ratio:.3f}"


def _goal(goal: float | None) -> str:
    return "" if goal is None else f">= {goal:g}"


def measured(names: Sequence[str], seconds: float, toy: bool) -> Iterator[Row | str]:
    """Rows and notes of the parts; a part that fails or has no time left is a row too."""
    end = time.monotonic() + seconds
    following: Child | None = Child(names[0], toy)
    for index, name in enumerate(names):
        child = following
        assert child is not None
        later = names[index + 1 :]
        # The next process imports its packages while this one measures.
        following = Child(later[0], toy) if later else None
        patience = 5 if toy else 1  # a CPU that others share
        limit = min(patience * PARTS[name].limit_s, end - time.monotonic())
        if limit <= 1:
            child.end()
            yield _failed(name, f"left out: {seconds:g} s are over")
            continue
        yield from child.results(limit)


def _failed(name: str, why: str) -> Row:
    return Row(name, why, "", float("nan"))


class Child:
    """The process of one part: it imports, waits for a line, and measures."""

    def __init__(self, name: str, toy: bool) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.gpu.child", name, *["--toy"] * toy]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its compilers end with it
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.complaints: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.complaints = [*self.complaints[-200:], line]

    def results(self, limit: float) -> Iterator[Row | str]:
        """Let it measure; ends it after `limit` seconds."""
        assert self.process.stdin is not None
        end = time.monotonic() + limit
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            while (line := self.lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                found: Any = json.loads(line)
                yield found if isinstance(found, str) else Row(**found)
            if self.process.wait():
                yield _failed(self.name, f"failed: {self._last()}")
                print("".join(self.complaints[-40:]), file=sys.stderr, flush=True)
        except queue.Empty:
            yield _failed(self.name, f"ended after {limit:.0f} s")
        except BrokenPipeError:
            yield _failed(self.name, f"failed: {self._last()}")
        finally:
            self.end()

    def _last(self) -> str:
        self.listener.join(5)
        last = [line.strip() for line in self.complaints if line.strip()][-1:]
        return last[0][:300] if last else f"exit status {self.process.returncode}"

    def end(self) -> None:
        """End the process and those that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
