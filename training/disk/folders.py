"""Folders that one process at a time writes into."""

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import BadInput

LOCK = ".lock"
PATIENCE_S = 1.0  # a third process that checks the lock holds it briefly


def lock_folder(folder: Path, doing: str) -> FileLock:
    """Lock a folder until `release()` or the end of this process.

    The lock is the kernel's (flock): a killed process leaves none, and on NFS it works between
    hosts. Forked workers do not inherit it. The lock file names the holder.

    Args:
        doing: verb for the message to other processes, such as "trains".
    Raises:
        BadInput: another process holds it.
    """
    file = folder / LOCK
    holder = _holder(file)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=PATIENCE_S, poll_interval=0.1)
    except Timeout as error:
        raise BadInput(
            f"{folder}: {holder or f'another process {doing} there'}; let it end, or choose "
            "another folder"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        print(f"warning: {folder}: its file system knows no locks; see to it that one run is there")
        return lock
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    who = {"doing": doing, "pid": os.getpid(), "host": platform.node(), "since": now}
    file.write_text(json.dumps(who) + "\n")
    return lock


def refuse_held(folder: Path, doing: str) -> None:
    """BadInput where another process holds the folder."""
    if (folder / LOCK).exists():
        lock_folder(folder, doing).release()


def held_by_another(folder: Path) -> bool:
    """Whether another process than this one holds the folder."""
    file = folder / LOCK
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return f"process {os.getpid()} on {platform.node()} " not in _holder(file)


@contextlib.contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Lock a folder while the block runs; see `lock_folder`."""
    lock = lock_folder(folder, doing)
    try:
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    """The last holder of the lock, from its file."""
    try:
        note = json.loads(file.read_text())
        return (
            f"process {note['pid']} on {note['host']} {note['doing']} there since {note['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
