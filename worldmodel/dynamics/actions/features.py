"""What a network reads of actions beside the raw columns: differences, and the predicted path."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from drives.actions.derived import LEFT
from training.errors import BadInput
from worldmodel.dynamics.actions.config import ReadActionsConfig

SPEED = "speed_mps"
Rows = Float[Tensor, "batch step action"]


class ActionFeatures:
    """Further columns of every row, in the scale of the raw ones; see `ReadActionsConfig`.

    Args:
        step_s: seconds of a time step.

    Raises:
        BadInput: a path is asked for, and no column tells speed or turning.
    """

    def __init__(self, reading: ReadActionsConfig, num_actions: int, step_s: float) -> None:
        self.differs = "difference" in reading.action_features
        self.path = Path(reading, step_s) if "path" in reading.action_features else None
        self.width = self.differs * num_actions + (0 if self.path is None else Path.WIDTH)

    def __call__(self, actions: Rows, scaled: Rows) -> list[Float[Tensor, "batch step feature"]]:
        """Features of raw rows, and of the same rows as the network reads them."""
        found = []
        if self.differs:  # the first row has none before it
            found.append(scaled - torch.cat([scaled[:, :1], scaled[:, :-1]], dim=1))
        return found if self.path is None else [*found, self.path(actions)]


class Path:
    """Where a row moves the car: an arc of constant speed and curvature.

    With the way s = speed x time and the turn a = curvature x s, the car gets s sin(a) / a ahead
    and s (1 - cos a) / a to the left (Rajamani, Vehicle Dynamics and Control, 2nd ed., section 2.2:
    the kinematic bicycle). Both fractions are Pade approximants: within 2 % up to a = 1, bounded
    beyond, and of operations that the codec has exactly.

    "standard" actions: in what their mean speed and the deviation of their turning amount to.
    """

    WIDTH = 3

    def __init__(self, reading: ReadActionsConfig, step_s: float) -> None:
        names = reading.action_columns
        if names is None:
            raise BadInput(
                "layout.action_columns=null with action_features=path: training takes the names "
                "from its data, elsewhere give them"
            )
        self.step_s, self.turning = step_s, _turning(names)
        self.speed_at, self.turn_at = names.index(SPEED), names.index(self.turning)
        self.factor = LEFT[self.turning]
        self.factor *= reading.full_lock_per_m if self.turning == "steering" else 1.0
        self.usual_ahead, self.spread = 0.0, (1.0,) * self.WIDTH
        if reading.action_scale == "standard":
            self._scale(*reading.moments(len(names)))

    def __call__(self, actions: Rows) -> Float[Tensor, "batch step 3"]:
        """Metres ahead, metres to the left, radians to the left."""
        way = actions[..., self.speed_at] * self.step_s
        turned = actions[..., self.turn_at] * self.factor
        turned = turned * (self.step_s if self.turning == "yaw_rate_rad_s" else way)
        squared = turned * turned
        ahead, left = way / (1 + squared / 6), way * turned / (2 + squared / 6)
        parts = (ahead - self.usual_ahead, left, turned)
        return torch.stack([p / s for p, s in zip(parts, self.spread, strict=True)], dim=-1)

    def _scale(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Mean and deviations of the path, to first order, from those of the columns."""
        way = max(abs(mean[self.speed_at]), std[self.speed_at]) * self.step_s
        turned = std[self.turn_at] * abs(self.factor)
        turned *= self.step_s if self.turning == "yaw_rate_rad_s" else way
        self.usual_ahead = mean[self.speed_at] * self.step_s
        self.spread = (std[self.speed_at] * self.step_s, way * turned / 2, turned)


def _turning(names: Sequence[str]) -> str:
    """The column that tells how the car turns; BadInput without it or without a speed."""
    turning = next((name for name in LEFT if name in names), None)
    if SPEED not in names or turning is None:
        raise BadInput(
            f"layout.action_features=path: needs the column {SPEED} and one of "
            f"{', '.join(LEFT)}; the data has {', '.join(names) or 'none'}. Choose columns "
            "(data.source.actions), or leave path out"
        )
    return turning
