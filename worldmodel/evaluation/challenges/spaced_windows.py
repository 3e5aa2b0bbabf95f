"""Windows of spaced frames, as 1X takes them: 16 frames of 30 Hz, half a second apart.

As RawTokenDataset of github.com/1x-technologies/1xgpt. Windows do not cross between drives, which
is its `filter_interrupts`; of those that share frames, `disjoint` keeps the first, which is its
`filter_overlaps`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from drives.captions import captions_at
from drives.tokens.store import TokenDrive
from training.errors import CorruptSample
from worldmodel.windows import TokenWindows, Window


class SpacedWindows(TokenWindows):
    """Windows of `num_steps` steps that lie `every` steps apart.

    Args:
        disjoint: no two windows share a step. Windows that begin at the first `every` steps stay,
            then those that begin where these end, and so on.

    Raises:
        BadInput: every drive is too short.
    """

    def __init__(
        self, drives: Sequence[TokenDrive], num_steps: int, every: int = 1, disjoint: bool = False
    ) -> None:
        self.every, self.disjoint = every, disjoint
        self.span = (num_steps - 1) * every + 1
        self.block = num_steps * every if disjoint else every
        super().__init__(drives, num_steps)

    def count(self, length: int) -> int:
        starts = max(0, length - self.span + 1)
        return starts // self.block * self.every + min(starts % self.block, self.every)

    def first_step(self, number: int) -> int:
        return number // self.every * self.block + number % self.every

    def __getitem__(self, index: int) -> Window:
        """Tokens, and the mean of the action rows between each step and the next."""
        drive, start = self._locate(index)
        if drive.damage:
            raise CorruptSample(f"drive {drive.id}, {drive.damage}")
        steps = range(start, start + self.span, self.every)
        rows = [drive.actions[step : step + self.every].mean(axis=0) for step in steps]
        tokens, actions = drive.tokens[steps.start : steps.stop : self.every], np.stack(rows)
        if self.captioned:
            captions = captions_at(drive.captions, steps.start, steps.stop)
            return tokens, actions, captions[:: self.every]
        return tokens, actions

    def describe(self, index: int) -> dict[str, Any]:
        drive, start = self._locate(index)
        return {"drive": drive.id, "steps": [start, start + self.span - 1], "every": self.every}
