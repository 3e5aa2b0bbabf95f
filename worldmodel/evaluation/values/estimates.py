"""Values of states: real returns, and estimates from an occupancy model.

The reward of a frame is that of the step which led to it: row t of a drive belongs to frame t + 1.
The value of frame t is V_t = sum_{j >= 0} gamma^j r_(t+j), and for x from the discounted future

    V_t = E[r(x)] / (1 - gamma)                                                           (1)

(Janner et al. 2020, arXiv 2010.14496, equation 3; Video Occupancy Models, arXiv 2407.09533).
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_TRUNCATED = 10  # rewards of a return in Video Occupancy Models


def value_from_samples(
    rewards: Float[Tensor, "sample *state"], gamma: float
) -> Float[Tensor, "*state"]:
    """(1), from the rewards of samples of the discounted future."""
    return rewards.mean(0) / (1 - gamma)


def num_counted(gamma: float, missing: float) -> int:
    """Rewards of a return in which at most a share `missing` of the weight is left out."""
    return 1 if gamma == 0 else max(1, math.ceil(math.log(missing) / math.log(gamma)))


def num_truncated(gamma: float) -> int:
    """Rewards of a truncated return in Video Occupancy Models: 1 / (1 - gamma), at most 10."""
    return min(math.floor(1 / (1 - gamma) + 1e-9), MOST_TRUNCATED)


def discounted(
    rewards: Float[np.ndarray, "*state step"], gamma: float
) -> Float[np.ndarray, "*state"]:
    """sum_j gamma^j r_j over all rewards that are given: a return that ends with them."""
    weights = gamma ** np.arange(rewards.shape[-1], dtype=np.float64)
    return np.asarray(rewards @ weights)


def whole_return(
    rewards: Float[np.ndarray, "*state step"], gamma: float
) -> Float[np.ndarray, "*state"]:
    """`discounted`, as if the rewards after the given ones were like them on average."""
    return np.asarray(discounted(rewards, gamma) / (1 - gamma ** rewards.shape[-1]))


def density_weights(
    logits: Float[Tensor, "*state token vocab"], tokens: Int[Tensor, "*state token"]
) -> Float[Tensor, "*state"]:
    """exp(sum of log-probabilities / (tokens + tokens with a negative logit)), as published.

    No density: the denominator makes of it a number that a sum over few frames can use.
    """
    chosen = logits.gather(-1, tokens[..., None])[..., 0]
    nats = chosen - logits.logsumexp(-1)
    return torch.exp(nats.sum(-1) / (tokens.shape[-1] + (chosen < 0).sum(-1)))


def density_value(
    weights: Float[Tensor, "step *state"], rewards: Float[Tensor, "step *state"]
) -> Float[Tensor, "*state"]:
    """Rewards of the next frames, weighted by how likely the model calls each."""
    return (weights * rewards).sum(0)
