"""What lies at a URL."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote

import fsspec

MARKS = ("ETag", "LastModified", "Last-Modified", "mtime", "md5Hash")
HIDDEN = re.compile(r"(^|/)\.")


class File(NamedTuple):
    """A file at a URL.

    Attributes:
        size: bytes.
        mark: changes when the file does, where the server says; else "".
    """

    size: int
    mark: str


def list_files(url: str, threads: int) -> dict[str, File]:
    """All files at a URL by their names below it, hidden ones left out.

    Over HTTP the names are the links of index pages; those that sort the page are no files.
    """
    system, root = fsspec.url_to_fs(url)
    start = system._strip_protocol(root).rstrip("/") + "/"
    entries = system.find(root, detail=True)
    is_http = url.lower().startswith("http")
    names = {}
    for place in entries:
        name = str(place).removeprefix(start)
        if is_http and ("?" in name or "#" in name):
            continue
        name = unquote(name) if is_http else name
        if name and not name.endswith("/") and not HIDDEN.search(name):
            names[place] = name

    def facts(place: str) -> File:
        entry: Mapping[str, Any] = entries[place]
        if is_http:  # an index page says neither size nor version
            entry = system.info(place)
        marks = [str(entry[key]) for key in MARKS if entry.get(key)]
        return File(int(entry["size"] or 0), " ".join(marks))

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(facts, names))
    return dict(zip(names.values(), found, strict=True))
