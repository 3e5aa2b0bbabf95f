"""Top-500 cross entropy of 1X's second challenge: a distribution as its 500 likeliest tokens.

The challenge does not say how it reads the values, nor what a real token costs that is not listed.
Here the values are natural logarithms of probabilities, and all other tokens share the rest evenly.
So every real token has a probability, and the score is at least the cross entropy of the best
distribution of that shape. Beside it stand the share of real tokens among the 500, and their cross
entropy with the 500 alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.masked.model import Masked

TOP = 500
CHUNK_BYTES = 1 << 27  # of log-probabilities at once
LEAST = 1e-9  # probability that the listed tokens leave to all others, at least


@dataclass(frozen=True)
class TopTokens:
    """The likeliest tokens of each position, the likeliest first.

    Attributes:
        indices: int32.
        values: natural logarithms of their probabilities.
    """

    indices: Int[Tensor, "*position top"]
    values: Float[Tensor, "*position top"]


@dataclass(frozen=True)
class TopScores:
    """Scores of real tokens.

    Attributes:
        nats: cross entropy; an unlisted token has an even share of the rest.
        listed: whether the real token is among the likeliest.
        nats_listed: cross entropy among the listed tokens alone; infinite for others.
    """

    nats: Float[Tensor, "*position"]
    listed: Bool[Tensor, "*position"]
    nats_listed: Float[Tensor, "*position"]


def top_tokens(log_probs: Float[Tensor, "*position vocab"], top: int = TOP) -> TopTokens:
    """The `top` likeliest tokens, or the whole smaller vocabulary."""
    found = log_probs.float().topk(min(top, log_probs.shape[-1]))
    return TopTokens(found.indices.int(), found.values)


def score_top(top: TopTokens, targets: Int[Tensor, "*position"], vocab_size: int) -> TopScores:
    """Scores of real tokens under a distribution given by its likeliest tokens."""
    values = top.values.double()
    hits = top.indices == targets[..., None]
    listed, own = hits.any(-1), values.masked_fill(~hits, -torch.inf).amax(-1)
    others = vocab_size - values.shape[-1]
    left = (1 - values.exp().sum(-1)).clamp(min=LEAST) / max(others, 1)
    nats = torch.where(listed, -own, -left.log())
    return TopScores(nats, listed, values.logsumexp(-1) - own)


@torch.no_grad()
def by_token(
    network: Dynamics,
    tokens: Int[Tensor, "batch time height width"],
    actions: Float[Tensor, "batch time action"] | None,
    first: int,
    use: Callable[[Float[Tensor, "part vocab"], Int[Tensor, " part"]], list[Tensor]],
) -> list[Tensor]:
    """Apply `use` to log-probabilities and real tokens of the time steps from `first` on.

    It comes in parts, because the distributions of a clip would fill the memory.

    Returns:
        The results of `use`, each [batch time - first space ...].
    """
    shape = (len(tokens), tokens.shape[1] - first, network.layout.tokens_per_step)
    targets = tokens[:, first:].flatten()

    def in_parts(x: Tensor, log_probs: Callable[[Tensor], Tensor]) -> list[Tensor]:
        flat = x.unflatten(1, (tokens.shape[1], -1))[:, first:].flatten(0, 2)
        size = max(1, CHUNK_BYTES // (4 * network.spec.vocab_size))
        pairs = zip(flat.split(size), targets.split(size), strict=True)
        parts = [use(log_probs(part), wanted) for part, wanted in pairs]
        return [torch.cat(column).unflatten(0, shape) for column in zip(*parts, strict=True)]

    if isinstance(network, Masked):
        logits = network(network.factors.split(tokens.flatten(2)), None, actions)
        return in_parts(logits.flatten(1, 2), network.factors.joint)
    if isinstance(network, GPT):
        return network(
            tokens,
            actions,
            head_fn=lambda x, states: in_parts(
                x, lambda part: network.logits(part).float().log_softmax(-1)
            ),
        )
    logits = network(tokens, actions)
    return in_parts(logits.flatten(1, 2), lambda part: part.float().log_softmax(-1))


def top_scores(
    network: Dynamics,
    tokens: Int[Tensor, "batch time height width"],
    actions: Float[Tensor, "batch time action"] | None,
    first: int,
    top: int = TOP,
) -> TopScores:
    """Top-500 scores of the tokens of the time steps from `first` on, [batch step space]."""

    def use(log_probs: Tensor, targets: Tensor) -> list[Tensor]:
        found = score_top(top_tokens(log_probs, top), targets, network.spec.vocab_size)
        return [found.nats, found.listed, found.nats_listed]

    return TopScores(*by_token(network, tokens, actions, first, use))


def check_independent(network: Dynamics) -> None:
    """BadInput where a token's distribution depends on real tokens of its own step."""
    if not network.independent_cells:
        raise BadInput(
            f"submission: this {type(network).__name__} predicts a token from real tokens of the "
            "same step, which the test of 1X does not tell; a submission needs a masked model, or "
            "a whole-frame one with inner_layers=0"
        )


def next_step(
    network: Dynamics,
    tokens: Int[Tensor, "batch time height width"],
    actions: Float[Tensor, "batch time action"] | None,
    top: int = TOP,
) -> TopTokens:
    """The likeliest tokens of the step after those given, for a submission: [batch space top].

    Raises:
        BadInput: a network that needs real tokens of that very step.
    """
    check_independent(network)
    unknown = torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)

    def use(log_probs: Tensor, targets: Tensor) -> list[Tensor]:
        found = top_tokens(log_probs, top)
        return [found.indices, found.values]

    indices, values = by_token(network, unknown, actions, tokens.shape[1], use)
    return TopTokens(indices[:, 0], values[:, 0])
