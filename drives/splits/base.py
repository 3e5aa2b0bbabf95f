"""Drives of a split. A missing split is an error; only a training run validates on test instead.

That is printed and recorded, because validation then chooses by test drives.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from drives.config import ROADS as ROADS  # judged in configs, which import no torch
from drives.config import SEEN as SEEN
from drives.config import SPLIT_CHOICES as CHOICES
from drives.config import SPLITS as SPLITS
from drives.config import UNSEEN as UNSEEN
from training.errors import BadInput
from training.machine import launched_rank


class InSplit(Protocol):
    """A drive, recorded or encoded."""

    @property
    def split(self) -> Any: ...
    @property
    def roads(self) -> str: ...


OfSplit = TypeVar("OfSplit", bound=InSplit)


def of_split(drives: Sequence[OfSplit], split: str, where: str) -> list[OfSplit]:
    """Drives of the split, in their order.

    Args:
        split: one of CHOICES.
        where: the folder, for messages.

    Raises:
        BadInput: there is no such split, or no drive in it.
    """
    if split not in CHOICES:
        raise BadInput(f"{where}: split is {split!r}; use one of {', '.join(CHOICES)}")
    found = [drive for drive in drives if is_in(drive, split)]
    if not found:
        counts = {name: sum(is_in(drive, name) for drive in drives) for name in CHOICES}
        there = [f"{count} in {name}" for name, count in counts.items() if count]
        raise BadInput(
            f"{where}: no drive is in the {split} split, but {', '.join(there) or 'nothing'}; "
            "choose one of these, or bring drives that have one"
        )
    return found


def is_in(drive: InSplit, choice: str) -> bool:
    """Whether a drive is in a split, or in one on seen or unseen roads."""
    split, _, roads = choice.partition("_")
    return bool(drive.split == split and (not roads or drive.roads == roads))


def default_split(name: str, index: int, count: int | None) -> str:
    """Split of a drive (or route) without one: by position among fewer than ten, else by name.

    Args:
        index: position in the order of the names.
        count: number of drives; None: by name.
    """
    if count is None or count >= 10:
        bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
        return {8: "val", 9: "test"}.get(bucket, "train")
    last_but_one = "val" if count > 2 else "train"
    return {1: "test", 2: last_but_one}.get(count - index, "train")


def while_training(drives: Sequence[OfSplit], split: str, where: str) -> list[OfSplit]:
    """As `of_split`, but without val drives it takes those of test, and says so."""
    if split == "val" and validates_on(drives) == "test":
        found = of_split(drives, "test", where)
        _say_once(
            f"note: {where}: no drive is in the val split, the {len(found)} of test stand in: "
            "what is chosen by val is chosen by test, and test scores of this run say less"
        )
        return found
    return of_split(drives, split, where)


def validates_on(drives: Sequence[InSplit]) -> str:
    """The split for validation: val, or test where val has no drive."""
    splits = {drive.split for drive in drives}
    return "test" if "test" in splits and "val" not in splits else "val"


@cache
def _say_once(message: str) -> None:
    if not launched_rank():
        print(message, flush=True)
