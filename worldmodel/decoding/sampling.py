"""How a token is drawn from logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.guidance import Guidance


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    Attributes:
        temperature: divides the logits; below 1 sharpens, above 1 flattens.
        top_k: only the k likeliest tokens, of equally likely ones those with the lowest numbers;
            0 keeps all. All of them leave the distribution sooner or later, and the likeliest
            alone loops (GAIA-1, Hu et al. 2023, arXiv 2309.17080, section 5), hence 50.
        top_p: only the fewest likeliest tokens whose probabilities sum to p; 1 keeps all.
        greedy: always the likeliest token; the other settings then have to stay at rest.
        seed: the same seed gives the same futures.
        guidance: makes what a condition changes stronger; not every method can.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0
    guidance: Guidance | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise BadInput(
                f"sampling.temperature={self.temperature}; give a positive number, "
                "or greedy=true for the limit 0"
            )
        if self.top_k < 0:
            raise BadInput(f"sampling.top_k={self.top_k}; give 1 or more, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"sampling.top_p={self.top_p}; give 0 < top_p <= 1")
        at_rest = self.temperature == self.top_p == 1 and self.top_k in (0, Sampling.top_k)
        if self.greedy and not at_rest:
            raise BadInput(
                "sampling.greedy=true ignores temperature, top_k and top_p; leave them out"
            )

    @property
    def guided(self) -> bool:
        return self.guidance is not None and self.guidance.scale > 0


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
