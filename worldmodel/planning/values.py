"""Values of action sequences, read from dreams of any kind of world model."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.evaluation.values.estimates import value_from_samples
from worldmodel.evaluation.values.rewards import RewardHead


@dataclass(frozen=True)
class ActionValues:
    """What a world model expects of actions after a state.

    An occupancy model draws frames of the discounted future after the first action of a sequence,
    under the policy of its data: one step of policy improvement. Any other kind rolls the sequence
    out; rewards behind its end count nothing.

    Args:
        head: reads the reward of a frame.
        gamma: discount; of an occupancy model its own.
        sampling: from all tokens, for rare ones count in a mean; candidates meet the same chances,
            for they are compared.

    Raises:
        BadInput: a model that reads no actions, or an occupancy model whose samples are not what
            the head reads.
    """

    network: Dynamics
    head: RewardHead
    gamma: float
    num_samples: int = 1
    sampling: Sampling = field(default_factory=lambda: Sampling(top_k=0, common=True))

    def __post_init__(self) -> None:
        if not self.network.conditioned:
            raise BadInput("planning: the world model reads no actions; take one that does")
        if isinstance(self.network, Occupancy):
            object.__setattr__(self, "gamma", self.network.config.gamma)
            if self.head.stack != self.network.sample_steps:
                raise BadInput(
                    f"planning: the reward head reads {self.head.stack} frames, a sample of the "
                    f"occupancy model has {self.network.sample_steps}; give both the same stack"
                )

    @property
    def most_frames(self) -> int:
        """Frames of the past that the model may read."""
        return self.network.state_steps or self.network.config.context_steps

    @property
    def fewest_frames(self) -> int:
        """Frames of the past that a value needs."""
        return self.network.state_steps or max(1, self.head.stack - 1)

    @torch.no_grad()
    def rewards(
        self,
        tokens: Int[Tensor, "*candidate time height width"],
        actions: Float[Tensor, "*candidate step action"],
        candidates: Float[Tensor, "candidate horizon action"],
        seed: int,
    ) -> Float[Tensor, "candidate sample step"]:
        """Rewards of the dreamt frames; of an occupancy model of one per sample.

        Args:
            tokens: the newest frames, `fewest_frames` or more; of all candidates or of each.
            actions: the rows between them, one less.
        """
        count, steps = candidates.shape[:2]
        state, past = tokens.expand(count, -1, -1, -1), actions.expand(count, -1, -1)
        known = self.head.stack - 1  # frames before the first dreamt one that the head reads
        if self.network.state_steps:
            candidates, steps, known = candidates[:, :1], self.network.sample_steps, 0
        frames = rollout(
            self.network,
            state,
            torch.cat([past, candidates], dim=1),
            steps,
            replace(self.sampling, seed=seed),
            self.num_samples,
        )
        before = state[:, None, state.shape[1] - known :].expand(-1, frames.shape[1], -1, -1, -1)
        return self.head(torch.cat([before, frames], dim=2))

    def __call__(
        self,
        tokens: Int[Tensor, "time height width"],
        actions: Float[Tensor, "step action"],
        candidates: Float[Tensor, "candidate horizon action"],
        seed: int = 0,
    ) -> Float[Tensor, " candidate"]:
        """The value of every candidate."""
        return self.of_rewards(self.rewards(tokens, actions, candidates, seed))

    def of_rewards(
        self, rewards: Float[Tensor, "candidate sample step"]
    ) -> Float[Tensor, " candidate"]:
        """Values from dreamt rewards."""
        if self.network.state_steps:
            return value_from_samples(rewards[..., 0].T, self.gamma)
        weights = self.gamma ** torch.arange(rewards.shape[-1], device=rewards.device)
        return (rewards.mean(1) * weights).sum(-1)
