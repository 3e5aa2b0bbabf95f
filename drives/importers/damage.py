"""What the standard library raises where an archive is damaged, or made to harm."""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import BadInput, first_line

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,  # numbers within pax records
    LookupError,  # a member that the directory of a zip does not list
    ArithmeticError,
    NotImplementedError,  # a kind of compression
    RuntimeError,  # a password; RecursionError: long names of long names of ...
    MemoryError,
)


@contextmanager
def damage_named(where: object) -> Iterator[None]:
    """Turns the exceptions of damaged archives into BadInput."""
    try:
        yield
    except BadInput:
        raise
    except DAMAGE as error:
        raise BadInput(f"{where}: is damaged or incomplete ({error}); copy it again") from error


@contextmanager
def errors_named(where: object, what: str, remedy: str) -> Iterator[None]:
    """BadInput for whatever a foreign reader raises: on damage that is nearly every exception."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where}: {what} ({first_line(error)}); {remedy}") from error
