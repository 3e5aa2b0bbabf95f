"""Compiles and loads the C function, once per machine: the library is kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from training.disk.places import cache_folder
from training.errors import first_line

HERE = Path(__file__).parent
SOURCES = HERE / "step.c", HERE / "lanes.h"
FLAGS = (
    "-std=gnu11 -O2 -ftree-vectorize -fno-vect-cost-model -march=native -fno-math-errno "
    "-fno-trapping-math -ffinite-math-only -fno-signed-zeros -fopenmp -shared -fPIC"
)


class NoLibrary(RuntimeError):
    """There is no library here; says why, in one line."""


def library() -> ctypes.CDLL:
    """The compiled library; the first call on a machine takes seconds.

    torch is loaded before: then both share one OpenMP library, and so one set of threads.

    Raises:
        NoLibrary: no compiler, or one that fails.
    """
    found = _loaded()
    if isinstance(found, str):
        raise NoLibrary(found)
    return found


@cache
def _loaded() -> ctypes.CDLL | str:
    """The library, or why there is none: a broken compiler is not asked again."""
    command = shlex.split(os.environ.get("CC") or "cc")
    if not command or shutil.which(command[0]) is None:
        return f"there is no C compiler {shlex.join(command)!r}; install one, or name it in CC"
    try:
        path = cache_folder() / "native" / f"step-{_key(command)}.so"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_strangers(path.parent)
        if not path.exists() and (said := _compile(command, path)) is not None:
            return f"{shlex.join(command)} fails: {said}"
        loaded = ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        return first_line(error)
    loaded.arena_size.restype = ctypes.c_int64
    loaded.step.restype = None
    return loaded


def _refuse_strangers(folder: Path) -> None:
    """OSError where another user may have written what is about to run."""
    known = folder.stat()
    if hasattr(os, "getuid") and (known.st_uid != os.getuid() or known.st_mode & 0o022):
        raise OSError(f"{folder}: others may write it; set DASHCAST_CACHE to a folder of your own")


def _compile(compiler: Sequence[str], path: Path) -> str | None:
    """Write the library beside its place and move it there: other processes may do the same.

    Returns:
        What the compiler said, if it failed.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as made:
        out = Path(made) / path.name
        command = [*compiler, *FLAGS.split(), "-o", str(out), str(SOURCES[0]), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 and out.exists():
            os.replace(out, path)
            return None
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return ([line for line in said if "error" in line] or said)[0]


def _key(compiler: Sequence[str]) -> str:
    """Of what the library depends on: sources, flags, compiler, C library, CPU and torch."""
    parts = [source.read_bytes() for source in SOURCES]
    words = [FLAGS, *compiler, *platform.libc_ver(), torch.__version__, _cpu()]
    parts += [word.encode() for word in words]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cpu() -> str:
    """The instructions of this CPU: a folder may serve several machines."""
    info = Path("/proc/cpuinfo")
    known = info.read_text().splitlines() if info.exists() else []
    able = [line for line in known if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(able))])
