"""Reads the files of a tar or tar.gz from front to back and checks every block.

Python's `tarfile` takes a damaged header for the end of the archive and trusts the size in a
header. Here headers follow each other without a gap, each with its checksum, up to the end mark
(two blocks of zeros). Only zeros may follow.
"""

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from drives.importers.damage import damage_named

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBER = 1 << 28  # bytes; a minute of commaVQ has 300 kB
MAX_EXTENSION = 1 << 16  # bytes of a long name, which tarfile reads whole
MAX_PADDING = 1 << 21  # bytes of zeros after the end mark; `tar -b` fills up its last record
EXTENSIONS = (b"L", b"K", b"x", b"g", b"X")  # long names and pax records
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)


def archive_members(file: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size in bytes and content of each file; read each before the next.

    Raises:
        BadInput: the archive is damaged or cut short, has data after its end, or holds a link, a
            device or a file larger than `MAX_MEMBER`.
    """
    packed = not file.name.endswith(".tar")
    with (
        damage_named(file),
        file.open("rb") as raw,
        gzip.GzipFile(fileobj=raw) if packed else raw as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar,
    ):
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all members in memory
            if not member.isdir():
                opened = tar.extractfile(member)
                assert opened is not None, "judged by its header"
                yield member.name, member.size, opened
        _check_end(cast(IO[bytes], tar.fileobj))


class _Header(tarfile.TarInfo):
    """A header that raises where tarfile would end the archive or trust a size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        limit = MAX_EXTENSION if header.type in EXTENSIONS else MAX_MEMBER
        if not 0 <= header.size <= limit:
            raise tarfile.ReadError(f"{header.name}: {header.size} bytes are not believable")
        if header.type not in (*FILES, *EXTENSIONS, tarfile.DIRTYPE):
            raise tarfile.ReadError(f"{header.name}: is neither a file nor a folder")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in the stubs
            raise
        except tarfile.HeaderError as error:
            raise ValueError(f"header at byte {archive.offset}: {error}") from error
        # A pax record may state another size or declare a sparse file.
        if not 0 <= header.size <= MAX_MEMBER or header.sparse is not None:
            raise ValueError(f"{header.name}: {header.size} bytes are not believable")
        return header


def _check_end(rest: IO[bytes]) -> None:
    """tarfile stopped at a block of zeros: at least one more must follow, and only zeros."""
    count = 0
    while block := rest.read(1 << 16):
        count += len(block)
        if block.strip(b"\0") or count > MAX_PADDING:
            raise EOFError("it goes on after its end mark")
    if count < tarfile.BLOCKSIZE:
        raise EOFError("its end mark is cut short")
