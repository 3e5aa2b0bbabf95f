"""What a driver commands, within the range of the training drives, and what follows from it.

Drives hold commands (steering, pedals) and measurements (speed, yaw rate); a model reads both. A
driver gives the commands. Measurements follow by a least-squares fit on the training drives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from drives.actions.derived import LEFT
from drives.tokens.drive import TokenDrive
from training.errors import BadInput
from training.ranges import one_of
from worldmodel.action_ranges import action_ranges

STEERING, SPEED = "steering", "speed_mps"
PEDALS = ("throttle", "brake")
GIVEN = ("commands", "all")
MAX_DRIVES = 256  # a large store is not read whole before the first frame
RIDGE = 1e-3  # of standardised columns

Rows = Float[np.ndarray, "dream action"]


@dataclass(frozen=True)
class Controls:
    """The action columns of a model, for a driver.

    Attributes:
        names: all columns, in the order of the model.
        low, high: of every column, from the training drives.
        commanded: places of the columns that a driver gives; the others follow.
        weights: rows: bias, all columns before, commands now, steering times speed before; columns:
            what follows.
    """

    names: tuple[str, ...]
    low: Float[np.ndarray, " action"]
    high: Float[np.ndarray, " action"]
    commanded: tuple[int, ...]
    weights: Float[np.ndarray, "feature follower"]

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(self.names[place] for place in self.commanded)

    @property
    def followers(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.names)) if i not in self.commanded)

    def checked(self, commands: Any, num: int) -> Float[np.ndarray, "dream command"]:
        """Commands of `num` dreams as numbers.

        Raises:
            BadInput: they are no numbers, of another shape, or not finite.
        """
        needed = (num, len(self.commanded))
        try:
            given = np.array(commands, np.float32)
        except (TypeError, ValueError) as error:
            raise BadInput(f"actions={str(commands)[:60]}: are no numbers ({error})") from error
        if given.shape != needed:
            raise BadInput(
                f"actions are {list(given.shape)}; give {list(needed)}: "
                f"{', '.join(self.commands)} of every dream"
            )
        if not np.isfinite(given).all():
            raise BadInput("actions hold NaN or infinity; give finite numbers")
        return given

    def complete(
        self, commands: Float[np.ndarray, "dream command"], before: Rows
    ) -> Float[np.ndarray, "dream action"]:
        """All columns: the commands as given, and what follows, kept within its range.

        Args:
            before: all columns of the step before.
        """
        actions = np.array(before, np.float32)
        actions[:, self.commanded] = commands
        if self.followers:
            places = list(self.followers)
            rows = _features(self.names, self.commanded, before, actions[:, self.commanded])
            follow = (rows @ self.weights).clip(self.low[places], self.high[places])
            actions[:, places] = follow
        return actions

    def outside(self, actions: Rows) -> Bool[np.ndarray, "dream action"]:
        """Which values no training drive has: there the dream is a guess."""
        margin = 1e-6 * np.maximum(1.0, np.abs(self.high - self.low))
        return (actions < self.low - margin) | (actions > self.high + margin)


def controls_of(
    drives: Sequence[TokenDrive], names: Sequence[str], given: str = "commands"
) -> Controls:
    """The controls of a model with these columns.

    Args:
        drives: those of its training.
        given: what a driver gives: "commands", or "all" columns.

    Raises:
        BadInput: an unknown `given`.
    """
    one_of(GIVEN, actions=given)
    drives = [drive for drive in drives[:: -(-len(drives) // MAX_DRIVES)] if not drive.damage]
    low, high = (np.array(side, np.float32) for side in action_ranges(drives))
    follow = {place for place, name in enumerate(names) if given == "commands"} & _measured(names)
    commanded = tuple(i for i in range(len(names)) if i not in follow)
    weights = np.zeros((0, 0))
    if follow:
        rows = [np.asarray(drive.actions, np.float64) for drive in drives]
        before, now = (np.concatenate([r[cut] for r in rows]) for cut in (_BEFORE, _NOW))
        features = _features(names, commanded, before, now[:, commanded])
        weights = _fit(features, now[:, sorted(follow)])
    return Controls(tuple(names), low, high, commanded, weights)


_BEFORE, _NOW = slice(None, -1), slice(1, None)


def _measured(names: Sequence[str]) -> set[int]:
    """Places of the columns that follow from a command among the others."""
    found: set[int] = set()
    if STEERING in names:
        found |= {i for i, name in enumerate(names) if name in LEFT and name != STEERING}
    if any(pedal in names for pedal in PEDALS):
        found |= {i for i, name in enumerate(names) if name == SPEED}
    return found


def _features(
    names: Sequence[str], commanded: Sequence[int], before: np.ndarray, commands: np.ndarray
) -> Float[np.ndarray, "row feature"]:
    """A car turns by its steering times its speed; everything else is linear."""
    columns = [np.ones((len(before), 1)), before, commands]
    names = list(names)
    if STEERING in names and SPEED in names:
        steering = commands[:, list(commanded).index(names.index(STEERING))]
        columns.append((steering * before[:, names.index(SPEED)])[:, None])
    return np.concatenate(columns, 1)


def _fit(features: np.ndarray, targets: np.ndarray) -> Float[np.ndarray, "feature follower"]:
    """Ridge regression; a column that is constant gets no weight."""
    scale = features.std(0)
    scale[scale < 1e-6] = np.inf
    scale[0] = 1.0
    scaled = features / scale
    penalty = np.diag(np.full(len(scale), RIDGE * len(features)))
    penalty[0, 0] = 0.0
    fitted = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ targets)
    weights: np.ndarray = fitted / scale[:, None]
    return weights
