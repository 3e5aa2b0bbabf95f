"""A drive as tokens: in memory, or rows of a store's file that are mapped when they are read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Integer

from drives.actions.units import OUTCOMES
from drives.captions import Caption


def actions_among(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that a model reads: what came of a step is none."""
    return tuple(name for name in columns if name not in OUTCOMES)


def chosen(
    rows: Float[np.ndarray, "step column"], columns: Sequence[str], names: Sequence[str]
) -> Float[np.ndarray, "step name"]:
    """Some columns of rows; a view where they are the first ones."""
    if tuple(columns[: len(names)]) == tuple(names):
        return rows[:, : len(names)]
    return rows[:, [columns.index(name) for name in names]]


@dataclass(frozen=True)
class TokenDrive:
    """One encoded drive.

    Attributes:
        tokens: [step height width] (or [step time height width] where T' > 1), unsigned.
        actions: float32 [step action]; row t explains step t+1.
        damage: why the drive cannot be read; its tokens and actions are then zeros.
        captions: texts about ranges of steps; empty in old stores.
        roads: "seen" or "unseen" in training, where that is known.
    """

    id: str
    split: str
    tokens: Integer[np.ndarray, "step *grid"] = field(repr=False)
    actions: Float[np.ndarray, "step action"] = field(repr=False)
    damage: str = ""
    captions: tuple[Caption, ...] = ()
    roads: str = ""

    @property
    def num_steps(self) -> int:
        return len(self.tokens)

    @property
    def columns(self) -> Float[np.ndarray, "step column"]:
        """All columns of its store, rewards included; in memory, the actions."""
        return self.actions

    @property
    def far(self) -> bool:
        """Whether its file may have to be fetched from a URL."""
        return False

    def prefetch(self) -> None:
        """Fetch its file in the background."""


class HoldsDrives(Protocol):
    """What keeps the rows of drives: a store."""

    @property
    def far(self) -> bool: ...
    def prefetch(self, rows: Iterable[int]) -> None: ...
    def steps_of(self, row: int) -> int: ...
    def tokens_of(self, row: int) -> np.ndarray: ...
    def actions_of(self, row: int) -> np.ndarray: ...
    def columns_of(self, row: int) -> np.ndarray: ...
    def damage_of(self, row: int) -> str: ...
    def captions_of(self, row: int) -> tuple[Caption, ...]: ...
    def roads_of(self, row: int) -> str: ...


class MappedDrive(TokenDrive):
    """A drive of a store: its arrays are views of a mapped file, copied only when indexed.

    The file is opened and checked when the arrays, or `damage`, are first read.

    Raises:
        BadInput: the arrays are read, the drive is damaged, and the store's `on_corrupt` is "stop".
    """

    _holder: HoldsDrives
    _row: int

    def __new__(cls, *args: Any, **fields: Any) -> Any:
        # `dataclasses.replace` gives all fields: what comes of it is in memory.
        return TokenDrive(**fields) if fields else object.__new__(cls)

    def __init__(self, id: str, split: str, holder: HoldsDrives, row: int) -> None:
        vars(self).update(id=id, split=split, _holder=holder, _row=row)  # the class is frozen

    @property
    def num_steps(self) -> int:
        return self._holder.steps_of(self._row)

    @property
    def far(self) -> bool:
        return self._holder.far

    def prefetch(self) -> None:
        self._holder.prefetch([self._row])

    @property
    def tokens(self) -> Integer[np.ndarray, "step *grid"]:
        return self._holder.tokens_of(self._row)

    @property
    def actions(self) -> Float[np.ndarray, "step action"]:
        return self._holder.actions_of(self._row)

    @property
    def columns(self) -> Float[np.ndarray, "step column"]:
        return self._holder.columns_of(self._row)

    @property
    def damage(self) -> str:
        return self._holder.damage_of(self._row)

    @property
    def captions(self) -> tuple[Caption, ...]:
        return self._holder.captions_of(self._row)

    @property
    def roads(self) -> str:
        return self._holder.roads_of(self._row)
