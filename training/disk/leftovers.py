"""Names for what is being written, and the end of those whose writer is gone.

`.NAME.OWNER.partial` beside NAME: the owner is a host, a process and when that process began, so
that two writers never share a name, and a process id that is used again is told apart.
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
ABANDONED_S = 24 * 3600.0  # of an owner on another host, whom nobody here can ask after


def partial_of(path: Path) -> Path:
    """Where this process writes what will be `path`; the same name at every call."""
    return path.with_name(f".{path.name}.{_owner(os.getpid())}{SUFFIX}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a name to write a file or a folder under; at the end of the block it is at `path`.

    Where the block raises, nothing of it stays. A file that is there is replaced; a folder has to
    be removed before by whoever may.
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
    """Remove what dead owners were writing in a folder, and return it.

    Files of other hosts, and of releases that named no owner, go when they are a day old.

    Args:
        name: of what was to be written; a pattern.
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
    """Whether it could be removed; what this user may not touch stays."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return not path.exists()
    return True


@cache
def _host() -> str:
    """Where a process id means one process: the host and, for containers on it, the namespace."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = ""
    return f"{socket.gethostname()}-{space}".replace(".", "_").replace("@", "_")  # these end parts


def _owner(pid: int) -> str:
    """HOST@PID-START; without a start where the process is gone or the system does not tell."""
    return f"{_host()}@{pid}-{_start(pid)}"


def _start(pid: int) -> str:
    """When a process began, in clock ticks since the machine started."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if _is_alive(pid) else "gone"
    state, *rest = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "gone" if state in "ZX" else rest[18]


def _is_alive(pid: int) -> bool:
    """Where there is no /proc (macOS)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
