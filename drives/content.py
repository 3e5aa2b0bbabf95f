"""Identity of files by sha256: a copy is the same data, a changed byte is other data.

A hash costs a read of the file, so `.content.json` beside the files keeps it with their sizes and
times. While these stay equal, nothing is read again. Hashes of read-only folders lie below `spare`.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from training.disk.hashing import file_sha256
from training.disk.records import read_record, write_record
from training.errors import BadInput

NAME = ".content.json"
# A file may change twice within a clock tick (2 s on FAT), so hashes of younger files are not kept.
TICK_S = 2.0
SAVE_EVERY_S = 10.0
NUM_LOCKS = 16

Files = Path | Sequence[Path]


class Hashes:
    """Hashes of the files below one folder; `hashes_of` returns the shared instance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spare: Path | None = None
        self._known: dict[str, list[str]] = _read(root / NAME)
        self._saved_at, self._new = -SAVE_EVERY_S, False

    def of(self, name: str, files: Files, measure: Callable[[Files], str] | None = None) -> str:
        """sha256 of a file, or of the names and contents of several.

        Args:
            name: key of the hash; one per drive.
            measure: in place of the sha256, another fact about the content.

        Raises:
            BadInput: a file cannot be read.
        """
        digest = self._of(name, files, measure)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()
        return digest

    def of_shared(
        self, name: str, file: Path, measure: Callable[[Files], str] | None = None
    ) -> str:
        """The same, of a large file: one process of the machine reads it, the others wait.

        Without the lock every worker of every rank would read it at the same time.
        """
        with self._alone(name):
            self._known = self._known | _read(self._folder / NAME)
            digest = self._of(name, file, measure)
            self.save()
        return digest

    def of_all(self, wanted: Mapping[str, Files], what: str) -> dict[str, str]:
        """The same for many names, in threads; a long run shows a progress bar."""
        names = list(wanted)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda name: self._of(name, wanted[name]), names)
            bar = tqdm(found, f"{self.root}: hashing {what}", len(names), delay=3.0, leave=False)
            digests = dict(zip(names, bar, strict=True))
        self.save()
        return digests

    def keep(self, written: Mapping[str, tuple[Path, str]]) -> None:
        """Keep the sha256 of files that were just written; they are not read.

        Args:
            written: file and sha256 by name.
        """
        for name, (file, digest) in written.items():
            self._keep(name, digest, *_stamp(file))
        self.save()

    def keep_in(self, spare: Path, always: bool = False) -> None:
        """Set the folder for the hashes of a read-only or (`always`) foreign folder."""
        if self.spare is None and (always or not os.access(self.root, os.W_OK)):
            name = hashlib.sha256(str(self.root).encode()).hexdigest()[:16]
            self.spare = spare / "content" / name
            self._known = _read(self.spare / NAME) | self._known

    def save(self) -> None:
        """Write new hashes; where the folder is read-only, the next run hashes again."""
        if not self._new:
            return
        self._saved_at, self._new = time.monotonic(), False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():  # what other processes have found in the meantime stays
                self._known = _read(self._folder / NAME) | self._known
                write_record(self._folder / NAME, {"hashes": dict(sorted(self._known.items()))})
        except OSError:
            self._saved_at = float("inf")

    @property
    def _folder(self) -> Path:
        return self.spare or self.root

    @contextmanager
    def _alone(self, name: str = "") -> Iterator[None]:
        """One process at a time, for one of a few groups of names; for all, where none can wait."""
        group = f".{zlib.crc32(name.encode()) % NUM_LOCKS}" if name else ""
        lock = FileLock(self._folder / f"{NAME}{group}.lock")
        try:
            lock.acquire()
        except (OSError, NotImplementedError):  # a read-only folder, or one that knows no locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _of(self, name: str, files: Files, measure: Callable[[Files], str] | None = None) -> str:
        try:
            stamp, changed_at = _stamp(files)
            known = self._known.get(name)
            if known and known[0] == stamp:
                return known[1]
            digest = (measure or _sha256)(files)
        except OSError as error:
            name = error.filename or name
            raise BadInput(f"{name}: cannot be read ({error.strerror})") from error
        self._keep(name, digest, stamp, changed_at)
        return digest

    def _keep(self, name: str, digest: str, stamp: str, changed_at: float) -> None:
        if abs(time.time() - changed_at) > TICK_S:  # ahead: another machine's clock
            self._known[name], self._new = [stamp, digest], True


@cache
def _hashes_of(root: Path) -> Hashes:
    return Hashes(root)


def hashes_of(root: Path) -> Hashes:
    """The hashes of a folder, read once per process."""
    return _hashes_of(Path(os.path.abspath(root)))


def _read(path: Path) -> dict[str, list[str]]:
    """The kept hashes; empty where their file is missing or damaged."""
    if not path.exists():
        return {}
    try:
        kept: Any = read_record(path).get("hashes")
    except BadInput:
        return {}
    return kept if isinstance(kept, dict) else {}


def _stamp(files: Files) -> tuple[str, float]:
    """Sizes and times of the files, and the time of the last change.

    The inode's change time counts, because unlike the modification time it cannot be set back.
    """
    if isinstance(files, Path):
        stat = files.stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}", stat.st_ctime
    digest, last = hashlib.sha256(), 0.0
    for file in files:
        stamp, changed_at = _stamp(file)
        digest.update(f"{file.name}/{stamp}\n".encode())
        last = max(last, changed_at)
    return digest.hexdigest(), last


def _sha256(files: Files) -> str:
    if isinstance(files, Path):
        return file_sha256(files)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}/{file_sha256(file)}\n".encode())
    return digest.hexdigest()
