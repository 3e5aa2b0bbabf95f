"""Samples tokens from logits."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoding.config import Sampling


def sample(
    logits: Float[Tensor, "row vocab"], sampling: Sampling, uniform: Float[Tensor, " row"]
) -> Int[Tensor, " row"]:
    """Sample one token per row: invert the cumulative distribution at `uniform` in [0, 1).

    The CPU draws the uniform numbers in advance. So futures are equal on every device, and the
    host never waits for the device.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(~likeliest(logits, sampling.top_k), -torch.inf)
    probs = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # the likeliest token always stays
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    total = probs.cumsum(dim=-1)
    # The level stays below 1 by more than a rounding error: beyond the last allowed token, the
    # sum is flat, and only excluded tokens follow.
    level = uniform.clamp(max=1 - 1e-6)[:, None] * total[:, -1:]
    return torch.searchsorted(total, level, right=True).squeeze(-1)


def entropy(logits: Float[Tensor, "*cell vocab"]) -> Float[Tensor, "*cell"]:
    """Entropy (nats) of each distribution."""
    log_probs = logits.float().log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def likeliest(logits: Float[Tensor, "row vocab"], k: int) -> Bool[Tensor, "row vocab"]:
    """Mask of exactly `k` tokens per row; among equals of the k-th, the lowest ids stay.

    In bf16, up to one row in thirty has such a tie. The choice of `topk` among equals depends on
    the device, its values do not.
    """
    kth = logits.topk(k).values[:, -1:]
    above, tied = logits > kth, logits == kth
    room = k - above.sum(dim=-1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=-1) <= room))
