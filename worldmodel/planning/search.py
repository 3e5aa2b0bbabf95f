"""Search for the best actions: random shooting and the cross-entropy method."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.planning.config import PlanningConfig

Candidates = Float[Tensor, "candidate horizon action"]


def best_actions(
    value: Callable[[Candidates], Float[Tensor, " candidate"]],
    proposals: Candidates,
    config: PlanningConfig,
    generator: torch.Generator,
) -> Float[Tensor, "horizon action"]:
    """The best action sequence that was seen.

    Each further round draws candidates from a normal distribution around the elites of all rounds
    (the cross-entropy method; Rubinstein 1999), within the range of the proposals.

    Args:
        value: judges candidates.
        proposals: of the first round.
    """
    low, high = proposals.amin(dim=(0, 1)), proposals.amax(dim=(0, 1))
    elites, worth = proposals[:0], torch.empty(0)
    candidates = proposals
    for number in range(config.rounds):
        judged = value(candidates)
        elites, worth = torch.cat([elites, candidates]), torch.cat([worth, judged.cpu()])
        best = worth.topk(min(config.num_elites, len(worth))).indices
        elites, worth = elites[best], worth[best]
        if number + 1 < config.rounds:
            noise = torch.randn(proposals.shape, generator=generator)
            spread = elites.std(dim=0, correction=0)
            candidates = (elites.mean(dim=0) + noise * spread).clamp(low, high)
    return elites[0]
