"""Drives of a split; an empty val or test is replaced by the other, with a printed note."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from training.errors import BadInput
from training.machine import launched_rank

SPLITS = ("train", "val", "test")
STANDS_IN = {"val": "test", "test": "val"}


class InSplit(Protocol):
    """A drive, recorded or encoded."""

    @property
    def split(self) -> Any: ...


OfSplit = TypeVar("OfSplit", bound=InSplit)


def of_split(drives: Sequence[OfSplit], split: str, where: str) -> list[OfSplit]:
    """Drives of the split, in their order, or of the split that replaces it.

    Args:
        where: the folder, for messages.

    Raises:
        BadInput: there is no such split, or no replacement for it.
    """
    if split not in SPLITS:
        raise BadInput(f"{where}: split is {split!r}; use one of {', '.join(SPLITS)}")
    found = [drive for drive in drives if drive.split == split]
    other = STANDS_IN.get(split)
    if not found and other:
        found = [drive for drive in drives if drive.split == other]
        if found:
            _say_once(
                f"note: {where}: no drive is in the {split} split, the {len(found)} of {other} "
                f"stand in: what is chosen by {split} is chosen by {other}"
            )
    if not found:
        raise BadInput(f"{where}: no drive is in the {split} split; bring drives that have one")
    return found


@cache
def _say_once(message: str) -> None:
    if not launched_rank():
        print(message, flush=True)
