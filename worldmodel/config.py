"""Settings of what a world model's training has beside its network; imports no torch."""

from dataclasses import dataclass

from training.ranges import at_least


@dataclass(frozen=True)
class RolloutMediaConfig:
    """Rollouts of fixed validation clips with fixed seeds.

    Attributes:
        every_steps: optimizer steps between pictures.
        num_clips: prompts.
        num_futures: rollouts of every prompt.
        horizon_steps: time steps of a rollout; fewer where no validation drive is long enough.
    """

    every_steps: int = 1000
    num_clips: int = 2
    num_futures: int = 2
    horizon_steps: int = 10

    def __post_init__(self) -> None:
        at_least(1, "callbacks.media.", every_steps=self.every_steps, num_clips=self.num_clips)
        at_least(1, "callbacks.media.", num_futures=self.num_futures)
        at_least(1, "callbacks.media.", horizon_steps=self.horizon_steps)
