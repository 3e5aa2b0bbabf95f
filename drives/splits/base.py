"""Drives of a split. A missing split is an error; only a training run validates on test instead.

That replacement is printed and recorded: what is then chosen by validation is chosen by test.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from training.errors import BadInput
from training.machine import launched_rank

SPLITS = ("train", "val", "test")


class InSplit(Protocol):
    """A drive, recorded or encoded."""

    @property
    def split(self) -> Any: ...


OfSplit = TypeVar("OfSplit", bound=InSplit)


def of_split(drives: Sequence[OfSplit], split: str, where: str) -> list[OfSplit]:
    """Drives of the split, in their order.

    Args:
        where: the folder, for messages.

    Raises:
        BadInput: there is no such split, or no drive is in it; no other split replaces it.
    """
    if split not in SPLITS:
        raise BadInput(f"{where}: split is {split!r}; use one of {', '.join(SPLITS)}")
    found = [drive for drive in drives if drive.split == split]
    if not found:
        counts = Counter(drive.split for drive in drives)
        there = [f"{counts[name]} in {name}" for name in SPLITS if counts[name]]
        raise BadInput(
            f"{where}: no drive is in the {split} split, but {', '.join(there) or 'nothing'}; "
            "choose one of these, or bring drives that have one"
        )
    return found


def while_training(drives: Sequence[OfSplit], split: str, where: str) -> list[OfSplit]:
    """As `of_split`; but a run without val drives validates on those of test, and says so."""
    if split == "val" and validates_on(drives) == "test":
        found = of_split(drives, "test", where)
        _say_once(
            f"note: {where}: no drive is in the val split, the {len(found)} of test stand in: "
            "what is chosen by val is chosen by test, and test scores of this run say less"
        )
        return found
    return of_split(drives, split, where)


def validates_on(drives: Sequence[InSplit]) -> str:
    """The split that a training run validates on: val, or test where no drive is in val."""
    splits = {drive.split for drive in drives}
    return "test" if "test" in splits and "val" not in splits else "val"


@cache
def _say_once(message: str) -> None:
    if not launched_rank():
        print(message, flush=True)
