"""Settings of how a network reads continuous actions; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from training.errors import BadInput
from training.ranges import one_of, positive

ActionMoments = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of every column

SCALES = ("symlog", "standard")
INPUTS = ("input", "added", "adaln")
FEATURES = ("difference", "path")


@dataclass(frozen=True, kw_only=True)
class ReadActionsConfig:
    """How "continuous" actions are read.

    Attributes:
        action_scale: "symlog": symlog(action). "standard": (action - mean) / std per column, so
            that no column drowns another.
        action_mean, action_std: of every column, for "standard". null: those of the train drives.
        action_input: where actions enter. "input": the input of the first block. Further also
            every block: "added" to its input, or modulating its norms ("adaln").
        action_features: what is read beside the raw columns, any of "difference" (of every column,
            to the row before; 0 in the first row of a window) and "path" (where the row moves the
            car: metres ahead and to the left, radians to the left).
        action_columns: names of the columns, for "path". null: those of the data.
        full_lock_per_m: curvature at `steering` 1, for "path" where no other column tells how the
            car turns.
    """

    action_scale: str = "symlog"
    action_mean: tuple[float, ...] | None = None
    action_std: tuple[float, ...] | None = None
    action_input: str = "input"
    action_features: tuple[str, ...] = ()
    action_columns: tuple[str, ...] | None = None
    full_lock_per_m: float = 0.2

    def check_reading(self, actions: str) -> None:
        """BadInput for settings out of range, or that would do nothing with these actions."""
        one_of(SCALES, "layout.", action_scale=self.action_scale)
        one_of(INPUTS, "layout.", action_input=self.action_input)
        for name in ("action_features", "action_columns"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(values))  # JSON and YAML have lists
        for name in self.action_features:
            one_of(FEATURES, "layout.", action_features=name)
        positive("layout.", full_lock_per_m=self.full_lock_per_m)
        for name in ("action_scale", "action_input", "action_features"):
            value, usual = getattr(self, name), getattr(ReadActionsConfig, name)
            if value != usual and actions != "continuous":
                raise BadInput(
                    f"layout.{name}={value} with actions={actions!r}: this is for continuous "
                    f"actions; set layout.actions=continuous or {name}={usual}"
                )
        for name in ("action_mean", "action_std"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(values))  # JSON and YAML have lists
                if self.action_scale != "standard":
                    raise BadInput(
                        f"layout.{name}={values} with action_scale={self.action_scale}; set "
                        f"action_scale=standard or {name}=null"
                    )
        positive("layout.", action_std=self.action_std or ())

    @property
    def acts_in_blocks(self) -> bool:
        """Whether every block reads the actions."""
        return self.action_input != "input"

    @property
    def rows_read(self) -> int:
        """Rows that the embedding of one row depends on: itself and those before it."""
        return 2 if "difference" in self.action_features else 1

    def named(self, columns: Sequence[str]) -> Self:
        """A copy that knows the names of the columns where a feature needs them."""
        if "path" not in self.action_features:
            return self
        if self.action_columns not in (None, tuple(columns)):
            raise BadInput(
                f"layout.action_columns={list(self.action_columns or ())}: the data has "
                f"{list(columns)}; set it to null"
            )
        return replace(self, action_columns=tuple(columns))

    def standardised(self, moments: ActionMoments) -> Self:
        """A copy with these moments for the scale "standard" where none are given."""
        if self.action_scale != "standard":
            return self
        mean, std = moments
        return replace(
            self, action_mean=self.action_mean or mean, action_std=self.action_std or std
        )

    def moments(self, num_actions: int) -> ActionMoments:
        """Mean and deviation per column; BadInput for another number of columns."""
        mean, std = self.action_mean, self.action_std
        if mean is None or std is None:
            raise BadInput(
                f"layout.action_mean={mean}, action_std={std}: training takes them from its "
                "drives, elsewhere give numbers"
            )
        if {len(mean), len(std)} != {num_actions}:
            raise BadInput(
                f"layout.action_mean={mean}, action_std={std} for {num_actions} action columns; "
                "give one number for each column"
            )
        return mean, std


# What a network that reads no actions has.
UNREAD: dict[str, Any] = {field.name: field.default for field in fields(ReadActionsConfig)}
