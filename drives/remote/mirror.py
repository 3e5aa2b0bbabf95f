"""A folder at a URL, mirrored file by file into a bounded local cache.

    <cache>/remote/<name>-<hash of the URL>/    the files that were needed, under their own names
    <cache>/remote/<...>/.url.json              the URL: whoever opens the folder finds the rest
    <cache>/remote/<...>/.marks.json            version of each file, where they were listed

Any URL that fsspec opens: http, https, s3, gs, ... A file has its name when it is complete; a
process that needs a file which another one fetches waits for it. Where the cache is full, the file
that was asked for longest ago goes; what is mapped into memory stays readable.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import fsspec
from filelock import FileLock
from tqdm import tqdm

from drives.remote.ahead import Ahead
from drives.remote.listing import File, list_files
from training.disk.leftovers import SUFFIX, sweep_leftovers, written_whole
from training.errors import BadInput

MARK, MARKS = ".url.json", ".marks.json"
URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
TRIES, FIRST_WAIT_S = 5, 0.5  # of a file; the wait doubles
NOT_FOUND = (404, 410)  # of HTTP
THREADS = 8
PIECE = 2**20  # bytes; smaller files (manifests, tables) are never evicted
T = TypeVar("T")
_opened: dict[Path, "Mirror"] = {}


class Unreachable(BadInput):
    """A URL does not answer, or not whole: that says nothing about the data."""


class _OtherContentError(OSError):
    """What arrives is not what was written."""


class Mirror:
    """The local folder of a URL; `mirror_of` returns the shared instance.

    Args:
        limit_gb: bytes that the folder may hold, in units of 1e9.
    """

    def __init__(self, folder: Path, url: str, limit_gb: float) -> None:
        self.folder, self.url, self.limit_gb = folder, url.rstrip("/"), limit_gb
        self._ahead = Ahead(THREADS)
        self._held: int | None = None  # bytes of the folder, as far as this process knows

    def __reduce__(self) -> Any:
        return mirror_of, (self.folder,)

    def fetch(self, name: str, size: int | None = None, check: str = "") -> Path:
        """The local file of this name; it is fetched first where it is missing.

        Args:
            name: below the URL, with "/" between folders.
            size: its bytes, where they are known; a file of another size is fetched again.
            check: its sha256, where that is known.

        Raises:
            Unreachable: the URL does not answer, or the file does not arrive.
            BadInput: the file is not there, or is another one than `size` and `check` say.
        """
        file = self.folder / own_name(name)
        if _is_here(file, size):
            return _used(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(file)):
            if not _is_here(file, size):
                self._download(name, file, size, check)
        return _used(file)

    def prefetch(self, names: Iterable[str], sizes: Mapping[str, int]) -> None:
        """Fetch these files in the background, the first first."""
        for name in names:
            if not _is_here(self.folder / own_name(name), sizes.get(name)):
                self._ahead.ask(name, partial(self.fetch, name, sizes.get(name)))

    def fetch_folder(self, what: str) -> None:
        """Make the folder what the URL is now: changed files anew, removed ones gone.

        Raises:
            BadInput: as `fetch`; there are no files, or more than the cache may hold.
        """
        files = _patient(lambda: list_files(self.url, THREADS), self.url)
        if not files:
            raise BadInput(f"{self.url}: holds no files; correct the URL")
        total = sum(file.size for file in files.values())
        if total > self.limit_gb * 1e9:
            raise BadInput(
                f"{self.url}: {total / 1e9:.1f} GB of {what} are needed at once, the cache may "
                f"hold {self.limit_gb:g} GB; give data.source.remote_cache_gb={total / 1e9:.0f}"
            )
        self._drop_old(files)
        missing = [n for n, f in files.items() if not _is_here(self.folder / own_name(n), f.size)]
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(self.fetch, name, files[name].size) for name in missing]
            try:
                for job in tqdm(jobs, f"{self.url}: fetching {what}", unit="file", delay=3.0):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
        with written_whole(self.folder / MARKS) as unfinished:
            unfinished.write_text(json.dumps({name: file.mark for name, file in files.items()}))

    def refresh(self, name: str) -> Path:
        """Fetch a small file anew, as it is there now; without a network, the copy counts."""
        file = self.folder / own_name(name)
        try:
            with FileLock(_lock_of(file)):
                self._download(name, file, None, "")
        except Unreachable as error:
            if not file.exists():
                raise
            print(f"warning: {error}; the copy of {time.ctime(file.stat().st_mtime)} is used")
        return file

    def _drop_old(self, files: Mapping[str, File]) -> None:
        """Remove what the URL no longer has, or has in another version."""
        marks = self.folder / MARKS
        known = json.loads(marks.read_text()) if marks.is_file() else {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
            if path.is_file() and not hidden:
                file = files.get(name)
                if file is None or known.get(name, file.mark) != file.mark:
                    path.unlink(missing_ok=True)

    def _download(self, name: str, file: Path, size: int | None, check: str) -> None:
        is_http = self.url.lower().startswith("http")
        url = f"{self.url}/{quote(name) if is_http else name}"

        def read() -> None:
            digest, count = hashlib.sha256(), 0
            with _source(url) as source, written_whole(file) as unfinished:
                with unfinished.open("wb") as target:
                    while piece := source.read(PIECE):
                        target.write(piece)
                        digest.update(piece)
                        count += len(piece)
                if size is not None and count != size:
                    raise _OtherContentError(f"{count} bytes arrived, {size} were expected")
                if check and digest.hexdigest() != check:
                    raise _OtherContentError("its sha256 is not the one that was written with it")

        self._make_room(size or 0)
        _patient(read, url)

    def _make_room(self, size: int) -> None:
        """Delete what was asked for longest ago.

        The folder is listed where this process alone may have filled it, and now and then, because
        others fill it too.
        """
        limit = self.limit_gb * 1e9
        if self._held is not None and self._held + size <= 0.9 * limit:
            self._held += size
            return
        found = []
        for path in self.folder.rglob("*"):
            try:
                if path.is_file() and not path.name.endswith(SUFFIX):
                    found.append((path.stat().st_size, path))
            except OSError:  # another process has just removed or renamed it
                continue
        held = sum(bytes_ for bytes_, _ in found)
        large = [(_last_use(path), bytes_, path) for bytes_, path in found if bytes_ > PIECE]
        for _, bytes_, path in sorted(large):
            if held + size <= limit:
                break
            path.unlink(missing_ok=True)
            held -= bytes_
        self._held = held + size


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
        with written_whole(folder / MARK) as unfinished:
            unfinished.write_text(json.dumps({"url": root, "limit_gb": limit_gb}) + "\n")
        _opened.pop(folder, None)
    return folder


def fetch_whole(folder: Path) -> None:
    """Make a mirror what its URL is now; nothing to do for a folder of one's own.

    Raises:
        BadInput: as `Mirror.fetch_folder`.
    """
    if mirror := mirror_of(folder):
        mirror.fetch_folder("drives")


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


def is_url(root: object) -> bool:
    """Whether a root is a URL instead of a folder."""
    return bool(URL.match(str(root)))


def own_name(name: str) -> PurePosixPath:
    """A name below the URL as a path below the folder; BadInput where it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise BadInput(f"{name!r}: is no file of the folder itself; leave it out of the URL")
    return path


def _lock_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")


def _used(file: Path) -> Path:
    """Note the use on the file's lock: dates of the file itself say whether it was changed."""
    lock = _lock_of(file)
    lock.touch()
    os.utime(lock, ns=(time.time_ns(), time.time_ns()))  # the kernel's own clock ticks slowly
    return file


def _last_use(file: Path) -> int:
    try:
        return _lock_of(file).stat().st_mtime_ns
    except OSError:
        return 0


def _is_here(file: Path, size: int | None) -> bool:
    try:
        return (size is None and file.is_file()) or file.stat().st_size == size
    except OSError:
        return False


def _source(url: str) -> Any:
    """The open file at a URL; BadInput where it is not there."""
    try:
        return fsspec.open(url, "rb").open()
    except FileNotFoundError as error:
        if _network_behind(error):  # fsspec calls that "not found" as well
            raise OSError(str(_network_behind(error))) from error
        raise BadInput(f"{url}: is not there; correct the URL") from error


def _network_behind(error: BaseException | None) -> BaseException | None:
    """The fault of a network that led to an error; None where the server answered "not found"."""
    while error is not None:
        is_network = isinstance(error, aiohttp.ClientError | ConnectionError | TimeoutError)
        if is_network and getattr(error, "status", None) not in NOT_FOUND:
            return error
        error = error.__cause__ or error.__context__
    return None


def _patient(read: Callable[[], T], url: str) -> T:
    """Try until it works; Unreachable, or BadInput for other content, after `TRIES`."""
    wait, last = FIRST_WAIT_S, Exception()
    for attempt in range(TRIES):
        try:
            return read()
        except BadInput:
            raise
        except ImportError as error:
            raise BadInput(f"{url}: needs a package ({error}); install dashcast[s3]") from error
        except Exception as error:  # every file system raises its own
            last = error
        if attempt < TRIES - 1:
            time.sleep(wait)
            wait *= 2
    kind = BadInput if isinstance(last, _OtherContentError) else Unreachable
    reason = f"{type(last).__name__}: {last}".strip(": ")
    raise kind(f"{url}: cannot be read after {TRIES} tries ({reason})") from last
