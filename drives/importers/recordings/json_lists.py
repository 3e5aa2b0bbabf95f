"""Large JSON lists of which only some entries are needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.errors import BadInput

Entry = dict[str, Any]


def read_entries(
    file: Path, keys: tuple[str, ...], keep: Callable[[Entry], bool] = lambda entry: True
) -> list[Entry]:
    """The flat objects of a list, each with `keys`; those that are not kept cost no memory.

    Raises:
        BadInput: the file is missing, damaged, no list of objects, or an object lacks a key.
    """

    def seen(entry: Entry) -> Entry | None:
        missing = [key for key in keys if key not in entry]
        if missing:
            raise ValueError(f"an entry has no {missing[0]!r}")
        return entry if keep(entry) else None

    try:
        entries = json.loads(file.read_bytes(), object_hook=seen)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); copy it again") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{file}: truncated, altered, or another file ({error})") from error
    if not isinstance(entries, list):
        raise BadInput(f"{file}: a list of objects is needed; is it another file?")
    return [entry for entry in entries if isinstance(entry, dict)]
