"""Writes foreign tokens into a token store: once per content, and nothing twice."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from drives.content import hashes_of
from drives.tokens.spec import TokenSpec
from drives.tokens.statistics import note_statistics
from drives.tokens.store import TokenStore
from drives.tokens.writer import NewDrive, TokenStoreWriter
from training.errors import BadInput


def import_tokens(
    out: Path,
    key: str,
    spec: TokenSpec,
    action_names: tuple[str, ...],
    drives: Callable[[], Iterator[NewDrive]],
) -> TokenStore:
    """The store at `out`, written from `drives` unless it was made from this `key`.

    Drives that the store has already are kept.

    Raises:
        BadInput: `out` holds something else.
    """
    store = TokenStore(out) if (out / "manifest.json").exists() else None
    if store is not None and store.manifest.get("notes", {}).get("imported_from") == key:
        return store
    found = drives()
    writer = TokenStoreWriter(out, spec, action_names)
    writer.write_all(_missing(found, store))
    note_statistics(writer)
    writer.note("imported_from", key)
    return TokenStore(out)


def content_key(format: str, files: Sequence[Path], cache: Path) -> str:
    """sha256 over names and contents; each file is read once, its hash kept below `cache`."""
    hashes = hashes_of(files[0].parent)
    hashes.keep_in(cache, always=True)
    names = hashlib.sha256("/".join(file.name for file in files).encode()).hexdigest()
    name = f"{format}-{names[:16]}"
    return hashes.of_all({name: files}, format)[name]


def _missing(drives: Iterator[NewDrive], store: TokenStore | None) -> Iterator[NewDrive]:
    """The drives that the store lacks; BadInput where another drive has the same name."""
    for drive, meta in drives:
        held = store.find(drive.id) if store else None
        if held is None:
            yield drive, meta
            continue
        assert store is not None
        same = np.array_equal(held.tokens, drive.tokens) and held.split == drive.split
        if not same or not np.array_equal(held.actions, drive.actions):
            raise BadInput(
                f"{store.root}: holds other frames as {drive.id}; nothing is overwritten, "
                "choose another folder"
            )
