"""Settings of the embedded drives; imports neither torch nor a simulator."""

from dataclasses import asdict, dataclass
from typing import Any

from training.errors import BadInput
from training.ranges import at_least, positive

PHYSICS_FPS = 50  # CarRacing's
OUTCOME_SWITCHES = ("rewards", "off_road")  # columns on request


@dataclass(frozen=True)
class CarRacingConfig:
    """Number and kind of the embedded drives; they determine the whole dataset.

    Attributes:
        seed: seed of all tracks and drivers.
        num_train, num_val, num_test: drives per split.
        seconds: length of one drive.
        fps: frames per second; a divisor of the 50 physics steps per second.
        size: side of the square frames in pixels.
        rewards: whether the drives have a column `reward`: CarRacing's own, of the step that led
            to the next frame. No model reads it.
        off_road: whether the drives have two more that no model reads, of the next frame:
            `off_road`, the share of the wheels that are off the road, and `done`, 1 where all of
            them have been off it for a second.

    Raises:
        BadInput: a value that no drive can have.
    """

    seed: int = 0
    num_train: int = 48
    num_val: int = 6
    num_test: int = 6
    seconds: float = 30.0
    fps: float = 10.0
    size: int = 64
    rewards: bool = False
    off_road: bool = False

    def __post_init__(self) -> None:
        at_least(0, "carracing.", seed=self.seed, num_val=self.num_val, num_test=self.num_test)
        at_least(1, "carracing.", num_train=self.num_train)
        at_least(16, "carracing.", size=self.size)
        positive("carracing.", fps=self.fps, seconds=self.seconds)
        if PHYSICS_FPS % self.fps:
            raise BadInput(f"carracing.fps={self.fps:g}: give a divisor of {PHYSICS_FPS}")
        if self.num_frames < 2:
            raise BadInput(f"carracing.seconds={self.seconds:g}: gives one frame; give more")

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings; drives without outcomes are those of before there were any."""
        asked = {name: getattr(self, name) for name in OUTCOME_SWITCHES}
        return {k: v for k, v in asdict(self).items() if asked.get(k, True)}

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def drives(self) -> dict[str, str]:
        """Split of every drive id, in the order of their indices."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {f"{split}-{i:04d}": split for split, num in counts.items() for i in range(num)}
