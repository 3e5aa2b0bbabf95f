"""The cards of world models: from settings to what measures."""

from collections.abc import Callable
from typing import Any

from worldmodel.evaluation.cards import commavq, control, onex, rollout, teacher_forced
from worldmodel.evaluation.cards.config import (
    Card,
    CommaVQCard,
    ControlCard,
    OnexCard,
    RolloutCard,
    TeacherForcedCard,
)
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.subject import JudgedModel

Check = Callable[[JudgedModel, Any], Any]
Measure = Callable[[JudgedModel, Any], Result]


def windows_fit(subject: JudgedModel, card: TeacherForcedCard) -> None:
    """BadInput where every drive is shorter than the context."""
    subject.windows(subject.network.config.context_steps, card.num_windows)


# What refuses a card before any work, and what measures it.
KINDS: dict[type[Card], tuple[Check, Measure]] = {
    TeacherForcedCard: (windows_fit, teacher_forced.measure),
    RolloutCard: (JudgedModel.lengths, rollout.measure),
    ControlCard: (JudgedModel.lengths, control.measure),
    OnexCard: (onex.check, onex.measure),
    CommaVQCard: (commavq.check, commavq.measure),
}


def check(subject: JudgedModel, card: Card) -> None:
    """BadInput where a card asks for what model or data have not."""
    KINDS[type(card)][0](subject, card)


def measure(subject: JudgedModel, card: Card) -> Result:
    """What a card finds about a world model."""
    return KINDS[type(card)][1](subject, card)
