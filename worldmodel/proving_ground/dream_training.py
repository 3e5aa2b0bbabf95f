"""A policy that has never seen the road: the cross-entropy method on returns in dreams."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.env.starts import Start
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.search import best_actions
from worldmodel.proving_ground.config import DREAMT, DreamTrainingConfig
from worldmodel.proving_ground.dreamed import DreamGround
from worldmodel.proving_ground.policies import FEATURES, LinearPolicy


def train_in_dreams(
    ground: DreamGround,
    starts: Sequence[Start],
    config: DreamTrainingConfig,
    say: Callable[[str], None] = print,
) -> LinearPolicy:
    """The weights whose dreams earn most.

    Every round dreams from the same starts, and every dream has random numbers of its own.
    """
    steps = max(1, round(config.seconds * ground.world.fps))
    rounds = iter(range(config.rounds))

    def value(candidates: Float[Tensor, "candidate 1 feature"]) -> Float[Tensor, " candidate"]:
        number = next(rounds)
        policies = [LinearPolicy(DREAMT, one) for one in candidates]
        found = ground.drive(policies, starts, steps, config.seed + number)
        returns = torch.from_numpy(found.rewards.sum(-1).mean(-1)).float()
        say(f"round {number + 1}: returns of mean {returns.mean():.2f}, best {returns.max():.2f}")
        return returns

    generator = torch.Generator().manual_seed(config.seed)
    shape = config.num_candidates, 1, FEATURES
    first = config.spread * torch.randn(shape, generator=generator)
    search = PlanningConfig(
        num_candidates=config.num_candidates, rounds=config.rounds, num_elites=config.num_elites
    )
    return LinearPolicy(DREAMT, best_actions(value, first, search, generator))
