"""How a token is drawn from logits."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoding.config import Sampling


def sample(
    logits: Float[Tensor, "row vocab"], sampling: Sampling, uniform: Float[Tensor, " row"]
) -> Int[Tensor, " row"]:
    """Draw one token per row by inverting its distribution function at `uniform` in [0, 1).

    One uniform number per token, drawn beforehand on the CPU, makes futures the same on every
    device and leaves nothing for the host to wait for.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(~_likeliest(logits, sampling.top_k), -torch.inf)
    probs = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # the likeliest token always stays
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    total = probs.cumsum(dim=-1)
    # Below 1 by more than a rounding error: the end of the sum may hold only excluded tokens.
    level = uniform.clamp(max=1 - 1e-6)[:, None] * total[:, -1:]
    return torch.searchsorted(total, level, right=True).squeeze(-1)


def _likeliest(logits: Float[Tensor, "row vocab"], k: int) -> Bool[Tensor, "row vocab"]:
    """Exactly `k` tokens of each row, the first ones where the k-th ties with others.

    In bf16, as many as one row in thirty has such a tie. topk's own choice among equals depends
    on the device; its values do not.
    """
    kth = logits.topk(k).values[:, -1:]
    above, tied = logits > kth, logits == kth
    room = k - above.sum(dim=-1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=-1) <= room))
