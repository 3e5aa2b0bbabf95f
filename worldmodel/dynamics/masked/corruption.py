"""Corruption of the tokens that a masked world model reads while it trains.

The published collator of GENIE (github.com/1x-technologies/1xgpt, data.py), step by step:

1. A share of all factors of all tokens, frame 0 too, becomes noise: `max_corrupt_rate` times one
   uniform number per batch (as in Copilot4D, arXiv 2311.01017).
2. With probability `non_mlm_ratio` everything before a frame, drawn uniformly from
   `num_prompt_frames` to the last, stays unmasked, and from it on a growing share becomes noise:
   the model's own errors add up in the same way. Else that frame is 1.
3. From that frame on, each frame of each clip is masked with probability cos(pi u / 2), token by
   token (MaskGIT, arXiv 2202.04200); drawn again while nothing at all is masked.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from worldmodel.dynamics.masked.config import MaskedConfig


def corrupt(
    factors: Int[Tensor, "batch time space factor"], sizes: Sequence[int], config: MaskedConfig
) -> tuple[Int[Tensor, "batch time space factor"], Bool[Tensor, "batch time space"]]:
    """The factors of a batch with noise in them, and which tokens are masked.

    Everything is drawn from torch's generator of the CPU: the same on every device, and no
    device is waited for.
    """
    shape, time = factors.shape, factors.shape[1]
    noise = torch.stack([torch.randint(size, shape[:-1]) for size in sizes], dim=-1)
    is_noise = torch.rand(shape) < config.max_corrupt_rate * torch.rand(())
    first = 1
    if torch.rand(()) < config.non_mlm_ratio:
        first = int(torch.randint(min(config.num_prompt_frames, time - 1), time, ()))
        decay = torch.empty(time - first).uniform_(0.9, 1.0).cumprod(0)
        is_right = torch.empty(()).uniform_(0.25, 1.0) * decay
        is_noise[:, first:] |= torch.rand(is_noise[:, first:].shape) > is_right[:, None, None]
    masked = torch.zeros(shape[:-1], dtype=torch.bool)
    while not masked.any():
        share = torch.cos(math.pi / 2 * torch.rand(shape[0], time - first, 1))
        masked[:, first:] = torch.rand(masked[:, first:].shape) < share
    device = factors.device
    seen = torch.where(is_noise.to(device), noise.to(device, factors.dtype), factors)
    return seen, masked.to(device)
