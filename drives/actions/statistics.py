"""What values action columns take: mean, standard deviation, quantiles, and how they are spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float

from training.errors import BadInput

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
MAX_ROWS = 2**20


@dataclass(frozen=True)
class ActionStatistics:
    """Statistics of some rows of actions.

    Attributes:
        names: the columns.
        num_rows: of all drives.
        num_read: of these, evenly spaced.
        mean, std: of every column; the standard deviation of the population.
        quantiles: [column quantile], at `QUANTILES`; the first and the last are the range.
    """

    names: tuple[str, ...]
    num_rows: int
    num_read: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """By column, as a manifest has them."""
        columns = {
            name: {
                "mean": self.mean[i],
                "std": self.std[i],
                "quantiles": dict(zip(map(str, QUANTILES), self.quantiles[i], strict=True)),
            }
            for i, name in enumerate(self.names)
        }
        return {"num_rows": self.num_rows, "num_read": self.num_read, "columns": columns}

    @classmethod
    def from_json(cls, values: Any, where: str) -> "ActionStatistics":
        """BadInput for what `to_json` does not write."""
        try:
            columns = dict(values["columns"])
            found = cls(
                tuple(map(str, columns)),
                int(values["num_rows"]),
                int(values["num_read"]),
                tuple(float(column["mean"]) for column in columns.values()),
                tuple(float(column["std"]) for column in columns.values()),
                tuple(
                    tuple(float(column["quantiles"][str(share)]) for share in QUANTILES)
                    for column in columns.values()
                ),
            )
            if not all(
                isfinite(q[0]) and isfinite(q[-1]) and sorted(q) == list(q) for q in found.quantiles
            ):
                raise ValueError("quantiles do not rise from the least value to the most")
            return found
        except (TypeError, ValueError, LookupError) as error:
            raise BadInput(f"{where}: statistics of actions are damaged ({error!r})") from error


def statistics_of(
    names: Sequence[str], drives: Sequence[Float[np.ndarray, "step action"]]
) -> ActionStatistics:
    """Statistics over the rows of all drives together; at most `MAX_ROWS` of them are read."""
    total = sum(len(rows) for rows in drives)
    every = max(1, -(-total // MAX_ROWS))
    parts = [rows[::every] for rows in drives]
    read = np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, len(names)))
    if not len(read):
        nothing = (float("nan"),) * len(names)
        return ActionStatistics(tuple(names), 0, 0, nothing, nothing, ())
    quantiles = np.quantile(read, QUANTILES, axis=0).T if len(names) else np.zeros((0, 0))
    return ActionStatistics(
        tuple(names),
        total,
        len(read),
        tuple(read.mean(axis=0).tolist()),
        tuple(read.std(axis=0).tolist()),
        tuple(tuple(row) for row in quantiles.tolist()),
    )
