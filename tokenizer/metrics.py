"""How good reconstructions are (PSNR, SSIM per image) and how much of a codebook is in use."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

# From -1 to 1.
DATA_RANGE = 2.0
# Of equal images, which would make every mean infinite. Where images of 8 bits differ at all, at
# 256x256 pixels or fewer, theirs is below 102 dB, and with rounding noise everywhere below 59.
MAX_PSNR_DB = 100.0


def psnr(pred: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio in dB of each image in [-1, 1], at most MAX_PSNR_DB.

    The mean over images of this is not the PSNR of their mean squared error.
    """
    ratio = peak_signal_noise_ratio(
        pred.float(), target.float(), data_range=DATA_RANGE, reduction="none", dim=(1, 2, 3)
    )
    return ratio.clamp(max=MAX_PSNR_DB)


def ssim(pred: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Structural similarity of each image in [-1, 1]; 1 for equal images.

    Source: Wang et al. 2004, eq. 13, with a Gaussian window of 1.5 pixels.
    """
    similarity = structural_similarity_index_measure(
        pred.float(), target.float(), data_range=DATA_RANGE, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    return similarity.reshape(len(pred))


def _digits_seen(seen: Bool[Tensor, "..."], axis: int) -> Float[Tensor, ""]:
    """Share of the values along one axis that occur with any of the others'."""
    return seen.movedim(axis, 0).flatten(1).any(dim=1).float().mean()


class CodebookStats:
    """Counts how often each code occurs, on the device of the tokens it is given.

    It is no nn.Module on purpose: DDP would overwrite the counts of every rank with rank 0's.
    To unite devices, sum `counts` over them.

    Args:
        factors: sizes whose product is num_codes, the first varying fastest, where a code is made
            of digits (FSQ's levels).

    Attributes:
        counts: int64 [num_codes].
    """

    def __init__(self, num_codes: int, factors: Sequence[int] = ()) -> None:
        self.factors = tuple(factors) or (num_codes,)
        self.counts: Integer[Tensor, code] = torch.zeros(num_codes, dtype=torch.int64)

    def update(self, tokens: Integer[Tensor, "..."]) -> None:
        """Count tokens of any shape; IndexError (on a GPU: an assertion) for unknown codes."""
        self.counts = self.counts.to(tokens.device)
        flat = tokens.flatten().long()
        # Not bincount, which on a GPU waits to learn the size of its result.
        self.counts.index_add_(0, flat, torch.ones_like(flat))

    def reset(self) -> None:
        self.counts = torch.zeros_like(self.counts)

    @property
    def usage(self) -> Float[Tensor, ""]:
        """Share of codes seen at least once, in [0, 1]."""
        return (self.counts > 0).float().mean()

    @property
    def reachable(self) -> Float[Tensor, ""]:
        """Share of the codes whose every digit is seen; a code that is one digit always counts.

        Below 1, a level of some channel is never used, so that no code with it can be.
        """
        if len(self.factors) == 1:
            return torch.ones((), device=self.counts.device)
        seen = self.counts.view(self.factors[::-1]) > 0
        return torch.stack([_digits_seen(seen, axis) for axis in range(seen.ndim)]).prod()

    @property
    def entropy_bits(self) -> Float[Tensor, ""]:
        """Entropy of the code frequencies in bits; NaN before the first update."""
        share = self.counts.float() / self.counts.sum()
        return -torch.special.xlogy(share, share).sum() / math.log(2)

    @property
    def perplexity(self) -> Float[Tensor, ""]:
        """exp(entropy): how many equally frequent codes would be as uncertain."""
        return torch.exp2(self.entropy_bits)
