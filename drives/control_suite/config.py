"""Settings of the control suite's episodes; imports neither torch nor MuJoCo."""

from dataclasses import dataclass
from typing import NamedTuple

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, within


class Task(NamedTuple):
    """A task of the suite.

    Attributes:
        step_s: seconds of one of its control steps.
    """

    domain: str
    name: str
    step_s: float


TASKS = {
    "cheetah_run": Task("cheetah", "run", 0.01),
    "walker_walk": Task("walker", "walk", 0.025),
}


MOST_STEPS = 1000  # of an episode of the suite, which then begins anew
MOST_SIZE = 480  # rows of MuJoCo's buffer
MOST_SEED = 4000  # a million episodes have each, and numpy's seeds end at 2**32


@dataclass(frozen=True)
class ControlSuiteConfig:
    """Number and kind of the episodes; they determine the whole dataset.

    Attributes:
        task: cheetah_run or walker_walk.
        seed: of the starts and of all actions.
        num_train, num_val, num_test: episodes per split.
        seconds: length of an episode; the suite's own have 1000 control steps.
        repeat: control steps per frame, with one action; 2 gives cheetah 50 frames per second,
            walker 20.
        size: side of the square frames in pixels.

    Raises:
        BadInput: a value that no episode can have.
    """

    task: str = "cheetah_run"
    seed: int = 0
    num_train: int = 24
    num_val: int = 3
    num_test: int = 3
    seconds: float = 10.0
    repeat: int = 2
    size: int = 64

    def __post_init__(self) -> None:
        one_of(tuple(TASKS), "--", task=self.task)
        at_least(0, "--", num_val=self.num_val, num_test=self.num_test)
        within(0, MOST_SEED, "--", seed=self.seed)
        at_least(1, "--", num_train=self.num_train, repeat=self.repeat)
        within(16, MOST_SIZE, "--", size=self.size)
        positive("--", seconds=self.seconds)
        if self.num_frames < 2:
            raise BadInput(f"--seconds={self.seconds:g}: gives less than two frames; give more")
        if (steps := self.num_frames * self.repeat) > MOST_STEPS:
            raise BadInput(
                f"--seconds={self.seconds:g}: are {steps} control steps of {self.task}; an episode "
                f"of the suite has {MOST_STEPS}; give less"
            )

    @property
    def fps(self) -> float:
        return 1 / (TASKS[self.task].step_s * self.repeat)

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def episodes(self) -> dict[str, str]:
        """Split of every episode id, in the order of their indices."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {f"{split}-{i:04d}": split for split, num in counts.items() for i in range(num)}
