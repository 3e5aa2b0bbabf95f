"""The result of a card: scores with intervals, values of every clip, details."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from worldmodel.evaluation.intervals import Estimate, mean_over_drives

Values = npt.NDArray[np.floating[Any]] | Sequence[float]

VIDEO = "video decoder"


def made_by(system: str, by: str) -> str:
    """Name of a system whose frames others than the tokenizer's own decoder make; "": that."""
    return f"{system}, {by}" if by else system


@dataclass
class Result:
    """Scores of one card.

    Attributes:
        clips: which clips; `Chosen.record`.
        drives: the drive of every clip.
        names: of every clip.
        systems: estimates by system ("world model", "copy last frame") and score.
        floors: systems that are no model; a model has to beat them.
        values: value of every clip, by system and score; `compare` pairs them.
        curves: per system and score, one estimate per entry of `axes`.
        details: everything else, as plain JSON.
        skipped: why there are no scores; "" where there are.
    """

    clips: dict[str, Any] = field(default_factory=dict)
    drives: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    systems: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    floors: list[str] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Estimate]]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""

    def score(self, system: str, name: str, values: Values) -> None:
        """Add a score of every clip; its mean and interval go into the table."""
        array = np.asarray(values, np.float64)
        estimate = mean_over_drives(array, self.drives)
        self.systems.setdefault(system, {})[name] = estimate
        self.values.setdefault(system, {})[name] = array.tolist()

    def floor(self, system: str, name: str, values: Values | float) -> None:
        """As `score`, for a system that is no model; one number where clips have none."""
        if system not in self.floors:
            self.floors.append(system)
        if isinstance(values, float | int):
            alone = Estimate(float(values), None, None, len(self.names), len(set(self.drives)))
            self.systems.setdefault(system, {})[name] = alone
        else:
            self.score(system, name, values)

    def curve(self, system: str, name: str, values: npt.NDArray[Any]) -> None:
        """Add a score [clip horizon]: a curve with its band, and its mean as the score."""
        columns = [mean_over_drives(column, self.drives) for column in values.T]
        self.curves.setdefault(system, {})[name] = columns
        self.score(system, name, values.mean(1))

    def plain(self) -> dict[str, Any]:
        """For metrics.json."""
        if self.skipped:
            return {"skipped": self.skipped}
        return {
            "clips": self.clips,
            "scores": {
                system: {name: estimate.plain() for name, estimate in scores.items()}
                for system, scores in self.systems.items()
            },
            "floors": self.floors,
            "curves": {
                system: {
                    name: {
                        key: [getattr(point, key) for point in points]
                        for key in ("value", "low", "high")
                    }
                    for name, points in curves.items()
                }
                for system, curves in self.curves.items()
            },
            **self.details,
        }
