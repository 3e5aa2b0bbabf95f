"""The cards of world models: from settings to what measures."""

from typing import Any, Protocol

from worldmodel.evaluation.cards import control, rollout, teacher_forced
from worldmodel.evaluation.cards.config import (
    Card,
    ControlCard,
    RolloutCard,
    TeacherForcedCard,
)
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.subject import Subject


class Measuring(Protocol):
    """A module of this folder."""

    def check(self, subject: Subject, card: Any) -> None:
        """Refuse what cannot be measured, before any work."""

    def measure(self, subject: Subject, card: Any) -> Result: ...


MODULES: dict[type[Card], Measuring] = {
    TeacherForcedCard: teacher_forced,
    RolloutCard: rollout,
    ControlCard: control,
}


def check(subject: Subject, card: Card) -> None:
    """BadInput where a card asks for what model or data have not."""
    MODULES[type(card)].check(subject, card)


def measure(subject: Subject, card: Card) -> Result:
    """What a card finds about a world model."""
    return MODULES[type(card)].measure(subject, card)
