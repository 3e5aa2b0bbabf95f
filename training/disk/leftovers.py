"""Names of partial files, and removal of those whose writer is dead.

`.NAME.OWNER.partial` beside NAME. The owner is host, process id and start time of the process, so
two writers never share a name, also where a process id is used again.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SUFFIX = ".partial"
ABANDONED_S = 24 * 3600.0  # for owners on other hosts, whose processes are not visible


def partial_of(path: Path) -> Path:
    """The partial file of this process for `path`; the same at every call."""
    return path.with_name(f".{path.name}.{_owner(os.getpid())}{SUFFIX}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a partial path for a file or folder; the end of the block renames it to `path`.

    Where the block raises, the partial is removed. An existing file is replaced; an existing
    folder must be removed before.
    """
    partial = partial_of(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        if partial.exists():
            _removed(partial)


def sweep_leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Remove the partials of dead owners in a folder, and return their paths.

    Partials of other hosts, and of old releases without owners, are removed after a day.

    Args:
        name: pattern for the final name.
    """
    return [path for path in folder.glob(f".{name}{SUFFIX}") if _is_dead(path) and _removed(path)]


def _is_dead(path: Path) -> bool:
    host, _, rest = path.name.removesuffix(SUFFIX).rpartition(".")[2].partition("@")
    pid = rest.partition("-")[0]
    if host == _host() and pid.isdigit():
        return rest != _owner(int(pid)).partition("@")[2]
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:  # another process has swept it
        return False


def _removed(path: Path) -> bool:
    """Whether the path was removed; without permission it stays."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return not path.exists()
    return True


@cache
def _host() -> str:
    """The scope of process ids: the host and, for containers, the namespace."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = ""
    return f"{socket.gethostname()}-{space}".replace(".", "_").replace("@", "_")  # these end parts


def _owner(pid: int) -> str:
    """HOST@PID-START; without START where the process is gone or the system has no /proc."""
    return f"{_host()}@{pid}-{_start(pid)}"


def _start(pid: int) -> str:
    """Start time of a process in clock ticks since boot."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if _is_alive(pid) else "gone"
    state, *rest = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "gone" if state in "ZX" else rest[18]


def _is_alive(pid: int) -> bool:
    """Whether a process is alive, without /proc (macOS)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
