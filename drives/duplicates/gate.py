"""The gate before training: near-duplicates across splits end it, unless the user allows them."""

from collections.abc import Sequence
from pathlib import Path

from drives.config import ON_DUPLICATES
from drives.drive import Drive
from drives.duplicates.match import Duplicate
from drives.duplicates.search import search_drives, search_store
from drives.duplicates.sheet import frames_of, tokens_of, write_sheet
from drives.tokens.store import TokenStore
from training.errors import BadInput
from training.machine import launched_rank

STOP, WARN, OFF = ON_DUPLICATES
SHOWN = 5


def refuse_duplicates(
    data: Sequence[Drive] | TokenStore,
    cache: Path,
    on_found: str,
    setting: str,
    on_corrupt: str = "stop",
) -> list[Duplicate]:
    """Find pairs in different splits that show the same footage; write pictures below `cache`.

    Args:
        on_found: "stop", "warn" (print and go on) or "off" (look for none).
        setting: its name, for messages.
        on_corrupt: "skip" leaves out drives that cannot be decoded.

    Raises:
        BadInput: there is a pair and `on_found` is "stop".
    """
    if on_found == OFF:
        return []
    if isinstance(data, TokenStore):
        where, pairs = data.root, search_store(data, cache)
    else:
        where, pairs = data[0].path.parent, search_drives(data, cache, on_corrupt)
    if not pairs:
        return []
    picture = cache / "duplicates" / f"{where.name}.png"
    if isinstance(data, TokenStore):
        write_sheet(picture, pairs, tokens_of({drive.id: drive for drive in data.all}))
    else:
        write_sheet(picture, pairs, frames_of({drive.id: drive for drive in data}))
    said = told(where, pairs, picture)
    if on_found == STOP:
        raise BadInput(
            f"{said}; leave one of each out, put both into one split, or go on: {setting}={WARN}"
        )
    if not launched_rank():
        print(f"warning: {said}")
    return pairs


def told(where: Path, pairs: Sequence[Duplicate], picture: Path) -> str:
    """The pairs in one line."""
    shown = "; ".join(str(pair) for pair in pairs[:SHOWN])
    more = f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    count = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    return f"{where}: {count} in different splits: {shown}{more} (pictures: {picture})"
