"""Compiles and loads C functions, once per machine: libraries are kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from training.disk.places import cache_folder
from training.errors import first_line

FLAGS = (
    "-std=gnu11 -O2 -ftree-vectorize -fno-vect-cost-model -march=native -fno-math-errno "
    "-fno-trapping-math -ffinite-math-only -fno-signed-zeros -fopenmp -shared -fPIC"
)


class NoLibrary(RuntimeError):
    """There is no library here; says why, in one line."""


def compiled(*sources: Path, options: str = "") -> ctypes.CDLL:
    """The library of C sources; the first call on a machine takes seconds.

    torch is loaded before: then both share one OpenMP library, and so one set of threads.

    Args:
        sources: the file to compile, then those that it includes.
        options: further options of the compiler.

    Raises:
        NoLibrary: no compiler, or one that fails.
    """
    command = shlex.split(os.environ.get("CC") or "cc")
    if not command or shutil.which(command[0]) is None:
        said = f"there is no C compiler {shlex.join(command)!r}; install one, or name it in CC"
        raise NoLibrary(said)
    command += shlex.split(f"{FLAGS} {options}")
    try:
        name = f"{sources[0].stem}-{_key(command, sources)}.so"
        path = cache_folder() / "native" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_strangers(path.parent)
        if not path.exists():
            _compile(command, sources[0], path)
        return ctypes.CDLL(str(path))
    except NoLibrary:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise NoLibrary(first_line(error)) from error


def _refuse_strangers(folder: Path) -> None:
    """OSError where another user may have written what is about to run."""
    known = folder.stat()
    if hasattr(os, "getuid") and (known.st_uid != os.getuid() or known.st_mode & 0o022):
        raise OSError(f"{folder}: others may write it; set DASHCAST_CACHE to a folder of your own")


def _compile(command: Sequence[str], source: Path, path: Path) -> None:
    """Write the library beside its place and move it there: other processes may do the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as made:
        out = Path(made) / path.name
        whole = [*command, "-o", str(out), str(source), "-lm"]
        done = subprocess.run(whole, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 and out.exists():
            os.replace(out, path)
            return
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    said = [line for line in said if "error" in line] or said
    raise NoLibrary(f"{command[0]} fails: {said[0]}")


def _key(command: Sequence[str], sources: Sequence[Path]) -> str:
    """Of what the library depends on: sources, command, C library, CPU and torch."""
    parts = [source.read_bytes() for source in sources]
    words = [*command, *platform.libc_ver(), torch.__version__, _cpu()]
    parts += [word.encode() for word in words]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cpu() -> str:
    """The instructions of this CPU: a folder may serve several machines."""
    info = Path("/proc/cpuinfo")
    known = info.read_text().splitlines() if info.exists() else []
    able = [line for line in known if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(able))])
