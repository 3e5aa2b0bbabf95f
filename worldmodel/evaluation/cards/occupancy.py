"""The card `occupancy`: what does the model know of the discounted future, and of values?"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drives.actions.units import REWARD
from training.errors import BadInput
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.evaluation.cards.config import OccupancyCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.clip_decoder import places_of
from worldmodel.evaluation.pixels import captions_of
from worldmodel.evaluation.subject import Chosen, JudgedModel
from worldmodel.evaluation.values.estimates import (
    density_value,
    density_weights,
    discounted,
    num_counted,
    num_truncated,
    value_from_samples,
    whole_return,
)
from worldmodel.evaluation.values.rewards import (
    CONVOLUTIONS,
    RewardHead,
    fit_rewards,
    rewarded,
)
from worldmodel.windows import TokenClip

MISSING = 0.05  # share of a return's weight that may lie beyond the rewards that are summed


def lacks(subject: JudgedModel, card: OccupancyCard) -> str:
    if isinstance(subject.network, Occupancy):
        return ""
    return "it predicts frame by frame, and has no discounted future; ask card=rollout"


def check(subject: JudgedModel, card: OccupancyCard) -> None:
    """BadInput for a reward that the data does not have, or drives shorter than a return."""
    if not isinstance(subject.network, Occupancy):
        return
    store, columns = subject.evidence.store, subject.evidence.store.columns
    if card.reward is not None and card.reward not in columns:
        raise BadInput(
            f"cards.occupancy.reward={card.reward}: {store.root} has no rewards of that name; "
            f"name one of {', '.join(columns) or 'no columns at all'}, or import the data with its "
            "rewards"
        )
    _chosen(subject, subject.network, card)


def measure(subject: JudgedModel, card: OccupancyCard) -> Result:
    """Bits of frames of the discounted future; values against returns, where there are rewards."""
    network = subject.network
    assert isinstance(network, Occupancy)
    chosen = _chosen(subject, network, card)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    clip = chosen.clip().to(subject.device)
    bits = _future_bits(network, subject, clip)
    result.score("world model", "bits_per_token", bits)
    result.floor("uniform", "bits_per_token", math.log2(subject.model.spec.vocab_size))
    gamma, columns = network.config.gamma, subject.evidence.store.columns
    result.details |= {"gamma": gamma, "horizon": network.config.horizon}
    reward = card.reward or (REWARD if REWARD in columns else "")
    if not reward or not subject.train:
        why = "no train drives to learn rewards from" if reward else "the data has no rewards"
        result.details["lines"] = [
            f"values are not estimated: {why}; cards.occupancy.reward=COLUMN takes any column of "
            f"{', '.join(columns) or 'none'}"
        ]
        return result
    _values(subject, network, chosen, clip, card, columns.index(reward), result)
    result.details["reward"] = reward
    return result


def _chosen(subject: JudgedModel, network: Occupancy, card: OccupancyCard) -> Chosen:
    """Windows of a state and the frames whose rewards make a return."""
    steps = num_counted(network.config.gamma, MISSING)
    return subject.windows(network.state_steps + steps, card.num_windows)


@torch.no_grad()
def _future_bits(
    network: Occupancy, subject: JudgedModel, clip: TokenClip
) -> Float[np.ndarray, " window"]:
    """Bits per token of a real frame k steps ahead, k drawn from the discount once per window."""
    state, later = network.state_steps, clip.tokens.shape[1] - network.state_steps
    drawn = np.random.default_rng(0).geometric(1 - network.config.gamma, len(clip.tokens))
    ahead = torch.from_numpy(np.minimum(drawn, later) - 1).to(clip.tokens.device)
    future = network.stack_of(clip.tokens, ahead)
    captions = captions_of(clip, subject.sampling, subject.texts)
    conditions = (clip.actions, None, captions)
    nats = network.score_sample(clip.tokens[:, :state], future, *conditions).nats[:, -1]
    return nats.mean(1).cpu().numpy() / math.log(2)


def _values(
    subject: JudgedModel,
    network: Occupancy,
    chosen: Chosen,
    clip: TokenClip,
    card: OccupancyCard,
    column: int,
    result: Result,
) -> None:
    """Squared errors of values against returns, beside those of floors."""
    gamma, state = network.config.gamma, network.state_steps
    grid = network.layout.height, network.layout.width
    stack = network.sample_steps
    span = max(1, round(card.smooth_s / subject.model.spec.step_s))
    known = rewarded(subject.train, column, grid, stack, span)
    stacks, led = (part.to(subject.device) for part in known)
    spec, steps = subject.model.spec, card.reward_steps
    head = fit_rewards(stacks, led, spec, steps, convolutions=CONVOLUTIONS)
    rows = _rows(subject, chosen, column)[:, state - 1 : -1]
    returns, truncated = whole_return(rows, gamma), _truncated(rows, gamma)
    samples = _samples(subject, network, clip, card.num_samples)
    own = value_from_samples(head(samples)[..., 0].movedim(1, 0), gamma).cpu().numpy()
    density = _density(subject, network, clip, head)
    real = whole_return(head(clip.tokens[:, state + 1 - stack :]).cpu().numpy(), gamma)
    typical = np.full(len(returns), float(led.mean()) / (1 - gamma))
    now = head(clip.tokens[:, state - stack : state])[:, 0].cpu().numpy() / (1 - gamma)
    estimates = {"world model": own, "reward head on the real future": real}
    for name, values in estimates.items():
        result.score(name, "value_error", (values - returns) ** 2)
        result.score(name, "truncated_value_error", (values - truncated) ** 2)
    floors = {"mean of train rewards": typical, "reward of the newest frame": now}
    for name, values in floors.items():
        result.floor(name, "value_error", (values - returns) ** 2)
        result.floor(name, "truncated_value_error", (values - truncated) ** 2)
    result.score("world model", "density_value", density)
    varied = len(own) > 1 and own.std() > 0 and returns.std() > 0
    result.details["correlation"] = float(np.corrcoef(own, returns)[0, 1]) if varied else None
    result.details["values"] = {
        "returns": returns.tolist(),
        "truncated": truncated.tolist(),
        "estimates": own.tolist(),
    }
    result.details["lines"] = [
        f"value_error: against returns of {rows.shape[1]} rewards, {gamma ** rows.shape[1]:.1%} of "
        "whose weight is taken to be like the rest",
        f"truncated_value_error: against returns that end after {num_truncated(gamma)} rewards, as "
        "published: too low by what comes later",
    ]


def _truncated(
    rows: Float[np.ndarray, "window step"], gamma: float
) -> Float[np.ndarray, " window"]:
    return discounted(rows[:, : num_truncated(gamma)], gamma)


def _rows(subject: JudgedModel, chosen: Chosen, column: int) -> Float[np.ndarray, "window step"]:
    """A column of the store at the steps of every window."""
    places, length = places_of(chosen.windows, chosen.ids), chosen.windows.num_steps
    by_id = {drive.id: drive.columns[:, column] for drive in chosen.windows.drives}
    return np.stack([by_id[drive][start : start + length] for drive, start in places]).astype(float)


def _samples(subject: JudgedModel, network: Occupancy, clip: TokenClip, num_samples: int) -> Tensor:
    """Samples of the discounted future of every window [window sample stack height width]."""
    found: Sequence[Tensor] = [
        rollout(
            network,
            part.tokens[:, : network.state_steps],
            part.actions if network.conditioned else None,
            network.sample_steps,
            subject.sampling,
            num_samples,
            captions=captions_of(part, subject.sampling, subject.texts),
            **subject.decoding,
        )
        for part in _parts(clip, subject.batch_size)
    ]
    return torch.cat(list(found))


def _parts(clip: TokenClip, size: int) -> list[TokenClip]:
    """A clip in batches; captions have no batches of their own."""
    if clip.text is not None:
        return [clip]
    pairs = zip(clip.tokens.split(size), clip.actions.split(size), strict=True)
    return [TokenClip(tokens, actions) for tokens, actions in pairs]


@torch.no_grad()
def _density(
    subject: JudgedModel, network: Occupancy, clip: TokenClip, head: RewardHead
) -> Float[np.ndarray, " window"]:
    """Rewards of the next real frames, by how likely the model calls each as a future."""
    state, weights, rewards = network.state_steps, [], []
    captions = captions_of(clip, subject.sampling, subject.texts)
    steps = min(num_truncated(network.config.gamma), clip.tokens.shape[1] - state)
    for step in range(steps):
        sample = network.stack_of(clip.tokens, step)
        pair = torch.cat([clip.tokens[:, :state], sample], dim=1)
        acted = network.acted(clip.actions)
        logits = network.online(pair, acted, captions=captions)[:, state:].float()
        weights.append(density_weights(logits.flatten(1, 2), sample.flatten(1)))
        rewards.append(head(sample)[:, 0])
    return density_value(torch.stack(weights), torch.stack(rewards)).cpu().numpy()
