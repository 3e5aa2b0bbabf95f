"""The cards of world models: what checks, allows and measures each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.errors import BadInput
from worldmodel.evaluation.cards import (
    commavq,
    control,
    distance,
    drift,
    floors,
    occupancy,
    onex,
    rollout,
    teacher_forced,
)
from worldmodel.evaluation.cards.config import (
    Card,
    CommaVQCard,
    ControlCard,
    DistanceCard,
    DriftCard,
    FloorsCard,
    OccupancyCard,
    OnexCard,
    RolloutCard,
    TeacherForcedCard,
)
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.subject import JudgedModel


def windows_fit(subject: JudgedModel, card: TeacherForcedCard | FloorsCard) -> None:
    """BadInput where every drive is shorter than the context."""
    subject.windows(subject.network.config.context_steps, card.num_windows)


def pixels_are_there(subject: JudgedModel, card: RolloutCard) -> str:
    return subject.why_no_pixels(card.lpips_net)


def train_drives_are_there(subject: JudgedModel, card: FloorsCard) -> str:
    return "" if subject.train else "the store holds no train drives to fit floors on"


def actions_are_read(subject: JudgedModel, card: ControlCard) -> str:
    return "" if subject.network.conditioned else "the model reads no actions"


@dataclass(frozen=True)
class Kind:
    """The functions of a card.

    Attributes:
        check: BadInput for settings that do not fit model and data.
        lacks: why model or data lack what the card needs; "" where they do not.
    """

    measure: Callable[[JudgedModel, Any], Result]
    check: Callable[[JudgedModel, Any], Any]
    lacks: Callable[[JudgedModel, Any], str] = lambda subject, card: ""


KINDS: dict[type[Card], Kind] = {
    TeacherForcedCard: Kind(teacher_forced.measure, windows_fit),
    FloorsCard: Kind(floors.measure, windows_fit, train_drives_are_there),
    RolloutCard: Kind(rollout.measure, JudgedModel.lengths, pixels_are_there),
    DistanceCard: Kind(distance.measure, JudgedModel.lengths, distance.lacks),
    ControlCard: Kind(control.measure, control.check, actions_are_read),
    DriftCard: Kind(drift.measure, JudgedModel.lengths),
    OccupancyCard: Kind(occupancy.measure, occupancy.check, occupancy.lacks),
    OnexCard: Kind(onex.measure, onex.check),
    CommaVQCard: Kind(commavq.measure, commavq.check),
}


def check(subject: JudgedModel, card: Card, asked: bool) -> None:
    """BadInput where model or data lack what a card needs.

    Args:
        asked: whether the user named the card; a default card is left out instead.
    """
    kind = KINDS[type(card)]
    if subject.network.state_steps and not isinstance(card, OccupancyCard):
        raise BadInput(
            f"card={card.name}: asks for the next frames, and {subject.model.path} samples one "
            "frame of the discounted future; ask card=occupancy"
        )
    kind.check(subject, card)
    lacks = kind.lacks(subject, card)
    if asked and lacks:
        raise BadInput(f"card={card.name}: {subject.model.path} cannot be asked: {lacks}")


def measure(subject: JudgedModel, card: Card) -> Result:
    """The result of a card for a world model."""
    kind = KINDS[type(card)]
    lacks = kind.lacks(subject, card)
    return Result(skipped=lacks) if lacks else kind.measure(subject, card)
