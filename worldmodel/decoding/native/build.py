"""Compiles and loads the C function, once per machine: the library is kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
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
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "there is no C compiler; install one, or name it in CC"
    try:
        path = cache_folder() / "native" / f"step-{_key(compiler)}.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            if (said := _compile(compiler, path)) is not None:
                return f"{compiler} fails: {said}"
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        return first_line(error)
    loaded.arena_size.restype = ctypes.c_int64
    loaded.step.restype = None
    return loaded


def _compile(compiler: str, path: Path) -> str | None:
    """Write the library beside its place and move it there: other processes may do the same.

    Returns:
        What the compiler said, if it failed.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as made:
        out = Path(made) / path.name
        command = [compiler, *FLAGS.split(), "-o", str(out), str(SOURCES[0]), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 and out.exists():
            os.replace(out, path)
            return None
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return ([line for line in said if "error" in line] or said)[0]


def _key(compiler: str) -> str:
    """Of what the library depends on: sources, flags, compiler, CPU and torch."""
    parts = [source.read_bytes() for source in SOURCES]
    parts += [FLAGS.encode(), compiler.encode(), torch.__version__.encode(), _cpu().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cpu() -> str:
    """The instructions of this CPU: a folder may serve several machines."""
    info = Path("/proc/cpuinfo")
    known = info.read_text().splitlines() if info.exists() else []
    able = [line for line in known if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(able))])
