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
        sampling: from all tokens, for rare ones count in a mean.

    Raises:
        BadInput: a model that reads no actions.
    """

    network: Dynamics
    head: RewardHead
    gamma: float
    num_samples: int = 1
    sampling: Sampling = field(default_factory=lambda: Sampling(top_k=0))

    def __post_init__(self) -> None:
        if not self.network.conditioned:
            raise BadInput("planning: the world model reads no actions; take one that does")
        if isinstance(self.network, Occupancy):
            object.__setattr__(self, "gamma", self.network.config.gamma)

    @property
    def most_frames(self) -> int:
        """Frames of the past that the model may read."""
        return self.network.state_steps or self.network.config.context_steps

    @torch.no_grad()
    def rewards(
        self,
        tokens: Int[Tensor, "time height width"],
        actions: Float[Tensor, "step action"],
        candidates: Float[Tensor, "candidate horizon action"],
        seed: int,
    ) -> Float[Tensor, "candidate sample step"]:
        """Rewards of the dreamt frames; of an occupancy model of one frame per sample.

        Args:
            tokens: the newest frames.
            actions: the rows between them, one less.
        """
        count, steps = candidates.shape[:2]
        if self.network.state_steps:
            candidates, steps = candidates[:, :1], 1
        past = actions.expand(count, -1, -1)
        frames = rollout(
            self.network,
            tokens.expand(count, -1, -1, -1),
            torch.cat([past, candidates], dim=1),
            steps,
            replace(self.sampling, seed=seed),
            self.num_samples,
        )
        return self.head(frames)

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
