"""The planner's options: settings, their cost, and the resulting plan."""

from dataclasses import dataclass, field

from training.planner.devices import Device
from training.planner.memory import StepCost


@dataclass(frozen=True)
class Settings:
    """Settings that change no result, up to rounding.

    Attributes:
        micro_batch: examples that one device holds at once.
        accumulate: micro-batches per optimizer step.
        checkpointing: whether activations are computed again in the backward pass.
    """

    micro_batch: int
    accumulate: int
    checkpointing: bool
    precision: str


@dataclass(frozen=True)
class Option:
    """Settings, and what they cost on one device.

    Attributes:
        parts: bytes by part when they are most together, the sharding taken into account.
        seconds: of one optimizer step.
    """

    settings: Settings
    cost: StepCost
    parts: dict[str, int]
    seconds: float
    fits: bool

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """A plan, as `training.planner.report` shows it.

    Attributes:
        configured: the settings as they are.
        proposed: the fastest that fit; None where none do.
        overrides: what to add to the command line for `proposed`.
    """

    name: str
    device: Device
    num_devices: int
    strategy: str
    max_steps: int
    max_passes: float | None
    configured: Option
    proposed: Option | None
    overrides: list[str] = field(default_factory=list)
