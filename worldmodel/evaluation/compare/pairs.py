"""Differences of scores, paired over the clips that two evaluations share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldmodel.evaluation.intervals import Estimate, difference

Findings = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as eval.py wrote it.

    Attributes:
        label: the run's short name.
        metrics, clips: `metrics.json` and `clips.json`.
    """

    label: str
    metrics: Findings
    clips: Findings

    def card(self, name: str) -> Findings:
        found: Findings = self.metrics["cards"].get(name, {})
        return found


@dataclass(frozen=True)
class Row:
    """A score of one system under every evaluation.

    Attributes:
        scores: of every evaluation, as in metrics.json; None where it has none.
        differences: to the first evaluation, over the clips; None where there is nothing to pair.
        why: why a difference is missing.
    """

    card: str
    system: str
    score: str
    scores: list[Findings | None]
    differences: list[Estimate | None]
    why: list[str]

    def significant(self, index: int) -> bool:
        """Whether the interval of a difference leaves out 0."""
        found = self.differences[index]
        if found is None or found.low is None or found.high is None:
            return False
        return found.low > 0 or found.high < 0


def rows_of(evaluations: list[Evaluation]) -> list[Row]:
    """Every score of the first evaluation beside those of the others."""
    first, rows = evaluations[0], []
    for name, card in first.metrics["cards"].items():
        for system, scores in card.get("scores", {}).items():
            for score in scores:
                found = [_score(e, name, system, score) for e in evaluations]
                pairs = [_difference(first, e, name, system, score) for e in evaluations]
                differences, why = (list(part) for part in zip(*pairs, strict=True))
                rows.append(Row(name, system, score, found, differences, why))
    return rows


def _score(evaluation: Evaluation, card: str, system: str, score: str) -> Findings | None:
    found: Findings | None = evaluation.card(card).get("scores", {}).get(system, {}).get(score)
    return found


def _difference(
    first: Evaluation, other: Evaluation, card: str, system: str, score: str
) -> tuple[Estimate | None, str]:
    """The paired difference, or None and the reason."""
    if other is first:
        return None, ""
    a, b = first.card(card), other.card(card)
    if a.get("hash") != b.get("hash"):
        return None, "another version of the card"
    if a.get("clips", {}).get("sha256") != b.get("clips", {}).get("sha256"):
        return None, "other clips"
    ours, theirs = (
        e.clips.get(card, {}).get("values", {}).get(system, {}).get(score) for e in (first, other)
    )
    if ours is None or theirs is None:
        return None, ""
    return difference(theirs, ours, first.clips[card]["drives"]), ""
