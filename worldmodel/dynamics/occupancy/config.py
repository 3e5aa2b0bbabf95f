"""Settings of the occupancy model; imports no torch."""

from dataclasses import dataclass, fields

from training.errors import BadInput
from training.ranges import at_least, below_one, within
from worldmodel.dynamics.config import check_reads_actions
from worldmodel.dynamics.gpt.config import GPTConfig


@dataclass(frozen=True)
class OccupancyConfig(GPTConfig):
    """Shape of the GPT that predicts the discounted future, and how it is bootstrapped.

    Attributes:
        context_steps: time steps of a training window: the frames of the state, then `horizon`.
        gamma: discount in [0, 1). The predicted frame is k steps ahead with probability
            (1 - gamma) gamma^(k - 1). 0: the next frame, as a GPT.
        horizon: real frames after the state. A target is one of them, or with probability
            gamma^horizon a sample of the target network. 1: as published.
        stack: consecutive frames of a sample, of which the newest is k steps ahead: rewards of a
            speed are in no single frame. Video Occupancy Models stack 3 (and read states as
            stacks, which here are the frames of a window).
        target_decay: share of the target network that stays at each optimizer step, in [0, 1).
        bootstrap_top_k: bootstraps are sampled from the k most likely tokens only, as published
            (50); 0: from all, without which the model misses rare tokens.
        whole_sequence: the loss counts every token behind the first one, as published; else the
            frames from `layout.first_target_step` on. Frames within the state are predicted one
            step ahead in either case.
    """

    context_steps: int = 2
    gamma: float = 0.8
    horizon: int = 1
    stack: int = 1
    target_decay: float = 0.9
    bootstrap_top_k: int = 0
    whole_sequence: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(gamma=self.gamma, target_decay=self.target_decay)
        within(1, self.context_steps - 1, horizon=self.horizon)
        within(1, self.state_steps, stack=self.stack)
        at_least(0, bootstrap_top_k=self.bootstrap_top_k)
        within(0, self.state_steps, "layout.", first_target_step=self.layout.first_target_step)
        check_reads_actions(self.layout)
        if self.noise_levels:
            raise BadInput(
                f"noise_levels={self.noise_levels}: an occupancy model reads no noise; set it to 0"
            )

    @property
    def state_steps(self) -> int:
        """Frames of a state."""
        return self.context_steps - self.horizon

    @property
    def trunk(self) -> GPTConfig:
        """The GPT that reads a state and predicts a sample."""
        shape = {field.name: getattr(self, field.name) for field in fields(GPTConfig)}
        return GPTConfig(**{**shape, "context_steps": self.state_steps + self.stack})
