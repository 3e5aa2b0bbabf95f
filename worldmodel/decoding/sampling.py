"""How a token is drawn from logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.guidance import Guidance


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    Attributes:
        temperature: divides the logits; below 1 sharpens, above 1 flattens.
        top_k: only the k likeliest tokens; 0 keeps all.
        top_p: only the fewest likeliest tokens whose probabilities sum to p; 1 keeps all.
        greedy: always the likeliest token; the other settings then have to stay at rest.
        seed: the same seed gives the same futures.
        guidance: makes what a condition changes stronger; not every method can.
    """

    temperature: float = 1.0
    top_k: int = 0
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
        if self.greedy and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
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
        kth = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probs = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # the likeliest token always stays
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    total = probs.cumsum(dim=-1)
    # Below 1 by more than a rounding error: the end of the sum may hold only excluded tokens.
    level = uniform.clamp(max=1 - 1e-6)[:, None] * total[:, -1:]
    return torch.searchsorted(total, level, right=True).squeeze(-1)
