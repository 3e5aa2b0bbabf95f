"""A folder at a URL, mirrored file by file into a bounded local cache.

    <cache>/remote/<name>-<hash of the URL>/    the files that were needed, under their own names
    <cache>/remote/<...>/.url.json              the URL: whoever opens the folder finds the rest

Any URL that fsspec opens: http, https, s3, gs, ... A file has its name when it is complete; a
process that needs a file which another one fetches waits for it. Where the cache is full, the file
that was opened longest ago goes; what is mapped into memory stays readable.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
from filelock import FileLock
from tqdm import tqdm

from training.disk.leftovers import sweep_leftovers, written_whole
from training.errors import BadInput

MARK = ".url.json"
URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
TRIES, FIRST_WAIT_S = 5, 0.5  # of a file; the wait doubles
THREADS = 8
PIECE = 2**20  # bytes
T = TypeVar("T")
_opened: dict[Path, "Mirror"] = {}


def is_url(root: object) -> bool:
    """Whether a root is a URL instead of a folder."""
    return bool(URL.match(str(root)))


class Mirror:
    """The local folder of a URL; `mirror_of` and `mirrored` return the shared instance.

    Args:
        limit_gb: bytes that the folder may hold, in units of 1e9.
    """

    def __init__(self, folder: Path, url: str, limit_gb: float) -> None:
        self.folder, self.url, self.limit_gb = folder, url.rstrip("/"), limit_gb
        self._ahead: dict[str, Future[Path]] = {}

    def __reduce__(self) -> Any:
        return mirror_of, (self.folder,)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix="prefetch")

    def fetch(self, name: str, size: int | None = None, check: str = "") -> Path:
        """The local file of this name; it is fetched first where it is missing.

        Args:
            name: below the URL, with "/" between folders.
            size: its bytes, where they are known; a file of another size is fetched again.
            check: its sha256, where that is known.

        Raises:
            BadInput: the file is not there, or does not arrive whole (names the URL).
        """
        file = self.folder / own_name(name)
        if self._is_here(file, size):
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            if not self._is_here(file, size):
                self._download(name, file, size, check)
        return file

    def prefetch(self, names: Iterable[str], sizes: Mapping[str, int]) -> None:
        """Fetch these files in the background, the first first."""
        for name in names:
            waiting = self._ahead.get(name)
            if waiting is not None and not waiting.done():
                continue
            if self._is_here(self.folder / own_name(name), sizes.get(name), touch=False):
                continue
            # What fails here fails again, and is told, where the file is needed.
            self._ahead[name] = self._threads.submit(self.fetch, name, sizes.get(name))

    def fetch_all(self, sizes: Mapping[str, int], what: str) -> None:
        """Fetch all these files, with a progress bar.

        Raises:
            BadInput: as `fetch`, or together they are more than the cache may hold.
        """
        total = sum(sizes.values())
        if total > self.limit_gb * 1e9:
            raise BadInput(
                f"{self.url}: {total / 1e9:.1f} GB of {what} are needed at once, the cache may "
                f"hold {self.limit_gb:g} GB; give data.source.remote_cache_gb={total / 1e9:.0f}"
            )
        missing = [n for n, s in sizes.items() if not self._is_here(self.folder / n, s)]
        if not missing:
            return
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(self.fetch, name, sizes[name]) for name in missing]
            try:
                for job in tqdm(jobs, f"{self.url}: fetching {what}", unit="file", delay=3.0):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def listed(self) -> dict[str, int]:
        """All files at the URL with their bytes, by names below it.

        Raises:
            BadInput: the URL cannot be listed.
        """

        def found() -> dict[str, int]:
            system, root = fsspec.url_to_fs(self.url)
            start = system._strip_protocol(root).rstrip("/") + "/"
            entries = system.find(root, detail=True)
            with ThreadPoolExecutor(THREADS) as pool:
                sizes = pool.map(lambda name: _size(system, name, entries[name]), entries)
                names = (str(name).removeprefix(start) for name in entries)
                return dict(zip(names, sizes, strict=True))

        return _patient(found, self.url)

    def refresh(self, name: str) -> Path:
        """Fetch a small file anew, as it is there now; without a network, the copy counts."""
        file = self.folder / own_name(name)
        try:
            with FileLock(self.folder / f".{file.name}.lock"):
                self._download(name, file, None, "")
        except BadInput as error:
            if not file.exists():
                raise
            print(f"warning: {error}; the copy of {time.ctime(file.stat().st_mtime)} is used")
        return file

    def _is_here(self, file: Path, size: int | None, touch: bool = True) -> bool:
        try:
            stat = file.stat()
        except OSError:
            return False
        if size is not None and stat.st_size != size:
            return False
        if touch:  # the time of the last use; the time of the content stays
            os.utime(file, ns=(time.time_ns(), stat.st_mtime_ns))
        return True

    def _download(self, name: str, file: Path, size: int | None, check: str) -> None:
        url = f"{self.url}/{name}"

        def read() -> None:
            digest, count = hashlib.sha256(), 0
            with fsspec.open(url, "rb") as source, written_whole(file) as partial:
                with partial.open("wb") as target:
                    while piece := source.read(PIECE):
                        target.write(piece)
                        digest.update(piece)
                        count += len(piece)
                if size is not None and count != size:
                    raise OSError(f"{count} bytes arrived, {size} were expected")
                if check and digest.hexdigest() != check:
                    raise OSError("its sha256 is not the one that was written with it")

        self._make_room(size or 0)
        _patient(read, url)

    def _make_room(self, size: int) -> None:
        """Delete what was used longest ago; small files (manifests, tables) stay."""
        files = [(f, f.stat()) for f in self.folder.rglob("*") if f.is_file()]
        held = sum(stat.st_size for _, stat in files)
        evictable = sorted((s.st_atime_ns, s.st_size, f) for f, s in files if s.st_size > PIECE)
        for _, bytes_, file in evictable:
            if held + size <= self.limit_gb * 1e9:
                return
            file.unlink(missing_ok=True)
            held -= bytes_


def folder_of(root: str, cache_folder: Path, limit_gb: float) -> Path:
    """The folder of a root; of a URL a local one, whose files come when `local` asks for them."""
    if not is_url(root):
        return Path(root)
    key = hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.-]", "-", PurePosixPath(root).name) or "root"
    folder = cache_folder / "remote" / f"{name}-{key}"
    known = mirror_of(folder)
    if known is None or known.limit_gb != limit_gb:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(folder)
        with written_whole(folder / MARK) as partial:
            partial.write_text(json.dumps({"url": root, "limit_gb": limit_gb}) + "\n")
        _opened.pop(folder, None)
    return folder


def fetch_whole(folder: Path) -> None:
    """Fetch all files of a mirror; nothing to do for a folder of one's own.

    Raises:
        BadInput: as `Mirror.fetch_all`, or the URL cannot be listed.
    """
    if mirror := mirror_of(folder):
        hidden = re.compile(r"(^|/)\.")
        files = {name: size for name, size in mirror.listed().items() if not hidden.search(name)}
        if not files:
            raise BadInput(f"{mirror.url}: holds no files; correct the URL")
        mirror.fetch_all(files, "drives")


def mirror_of(folder: Path) -> Mirror | None:
    """The mirror that a folder is; None for a folder of one's own."""
    if folder not in _opened:
        mark = folder / MARK
        if not mark.is_file():
            return None
        values = json.loads(mark.read_text())
        _opened[folder] = Mirror(folder, str(values["url"]), float(values["limit_gb"]))
    return _opened[folder]


def local(folder: Path, name: str, size: int | None = None, check: str = "") -> Path:
    """A file of a folder; of a mirror it is fetched first (`Mirror.fetch`)."""
    mirror = mirror_of(folder)
    return folder / name if mirror is None else mirror.fetch(name, size, check)


def own_name(name: str) -> PurePosixPath:
    """A name below the URL as a path below the folder; BadInput where it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise BadInput(f"{name!r}: is no file of the folder itself; leave it out of the URL")
    return path


def _size(system: Any, name: str, entry: Mapping[str, Any]) -> int:
    """Bytes of a file; a listing over HTTP does not say."""
    size = entry["size"]
    return int(system.info(name)["size"] if size is None else size)


def _patient(read: Callable[[], T], url: str) -> T:
    """Try until it works; BadInput with the last reason after `TRIES`."""
    wait = FIRST_WAIT_S
    for attempt in range(TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            raise BadInput(f"{url}: is not there; correct the URL") from error
        except ImportError as error:
            raise BadInput(f"{url}: needs a package ({error}); install dashcast[s3]") from error
        except Exception as error:  # every file system raises its own
            last = error
        if attempt < TRIES - 1:
            time.sleep(wait)
            wait *= 2
    reason = f"{type(last).__name__}: {last}".strip(": ")
    raise BadInput(f"{url}: cannot be read after {TRIES} tries ({reason})") from last
