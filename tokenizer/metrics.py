"""Reconstruction quality (PSNR, SSIM per image) and codebook usage."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Integer
from torch import Tensor

# From -1 to 1.
DATA_RANGE = 2.0
# PSNR of equal images; infinity would make every mean infinite. 8-bit images of at most 256x256
# pixels that differ at all stay below 102 dB, and with rounding noise everywhere below 59 dB.
MAX_PSNR_DB = 100.0
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
SSIM_PLANES = 12  # filtered at once: four images
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for values in [0, 1]
LEVELS_PER_UNIT = 127.5  # 8-bit levels between 0 and 1 of the range [-1, 1]
STILL = 2.0 / LEVELS_PER_UNIT


def psnr(pred: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Peak signal-to-noise ratio in dB of each image in [-1, 1], at most MAX_PSNR_DB.

    The mean over images of this is not the PSNR of their mean squared error.
    """
    error = (pred.float() - target.float()).square().mean((1, 2, 3))
    return (10 * (DATA_RANGE**2 / error).log10()).clamp(max=MAX_PSNR_DB)


def ssim(pred: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Structural similarity of each image in [-1, 1]; 1 for equal images.

    With a Gaussian window of 1.5 pixels, over all pixels whose window lies within the image, as in
    scikit-image; NaN for images of fewer than 11 pixels on a side.

    Source: Wang et al. 2004, eq. 13.
    """
    # The luminance term takes brightness from 0 on: of values around 0 it is another measure.
    # Double, because variances are small differences of large moments.
    a, b = ((images.double().flatten(0, 1)[:, None] + 1) / 2 for images in (pred, target))
    if min(a.shape[-2:]) < SSIM_WINDOW:
        return pred.new_full((len(pred),), float("nan"), dtype=torch.float32)
    at = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=a.device) - SSIM_WINDOW // 2
    window = (at.square() / (-2 * SSIM_SIGMA**2)).exp()
    window = window / window.sum()
    # Some planes at a time: on CPUs a convolution in double unfolds all its windows at once.
    chunks = zip(a.split(SSIM_PLANES), b.split(SSIM_PLANES), strict=True)
    found = torch.cat([_similarity(x, y, window) for x, y in chunks])
    return found.view(len(pred), -1).mean(1).float()


def _similarity(
    a: Float[Tensor, "n 1 h w"], b: Float[Tensor, "n 1 h w"], window: Float[Tensor, " k"]
) -> Float[Tensor, "n"]:
    """Mean structural similarity of each plane of brightness from 0 to 1."""
    # One axis after the other: as exact as the library's square window, and six times as fast.
    moments = torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)
    moments = F.conv2d(F.conv2d(moments, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    mean_a, mean_b, aa, bb, ab = moments.view(5, len(a), *moments.shape[-2:])
    covariance, variances = ab - mean_a * mean_b, aa - mean_a**2 + bb - mean_b**2
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    table = luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
    return table.flatten(1).mean(1)


def fixed_pattern(error: Float[Tensor, "3 h w"], period: int) -> Float[Tensor, ""]:
    """What of a mean error repeats every `period` pixels: a checkerboard, in 8-bit levels.

    The RMS over channels and phases of the error's mean over all periods, without its mean: a
    wrong brightness is no pattern. A period of 8 pixels contains those of 4 and 2.

    Args:
        error: reconstruction minus frame, in the range [-1, 1], averaged over many frames; what
            depends on the picture averages out.
        period: divides height and width.
    """
    cells = rearrange(error, "c (h y) (w x) -> c y x (h w)", y=period, x=period).mean(-1)
    pattern = cells - cells.mean((1, 2), keepdim=True)
    return pattern.square().mean().sqrt() * LEVELS_PER_UNIT


def flicker(
    fake: Float[Tensor, "time 3 h w"], real: Float[Tensor, "time 3 h w"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Frame-to-frame change that the tokenizer adds or loses, in 8-bit levels.

    Returns:
        mean |(fake_t+1 - fake_t) - (real_t+1 - real_t)| over all pixels, and mean
        |fake_t+1 - fake_t| where the recording stands still (changes by at most 2 levels; NaN
        where no pixel does): the visible shimmer.

    Source: the first applies the idea of tLP (Chu et al. 2020, arXiv:1811.09393, section 5) to
    pixels: it compares changes over time with those of the recording. A constant error has no
    flicker, whatever its PSNR.
    """
    fake_change, real_change = fake.diff(dim=0), real.diff(dim=0)
    still = real_change.abs() <= STILL + 1e-6
    wrong = (fake_change - real_change).abs().mean() * LEVELS_PER_UNIT
    return wrong, fake_change[still].abs().mean() * LEVELS_PER_UNIT


def _digits_seen(seen: Bool[Tensor, "..."], axis: int) -> Float[Tensor, ""]:
    """Share of the values along one axis that occur at all."""
    return seen.movedim(axis, 0).flatten(1).any(dim=1).float().mean()


class CodebookStats:
    """Counts how often each code occurs, on the device of the tokens.

    Not an nn.Module: DDP would overwrite the counts of every rank with rank 0's. To join
    devices, sum `counts` over them.

    Args:
        factors: for codes made of digits (FSQ's levels): their sizes, the first varying fastest;
            the product is num_codes.

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
        # Not bincount: on a GPU it waits for the size of its result.
        self.counts.index_add_(0, flat, torch.ones_like(flat))

    def reset(self) -> None:
        self.counts = torch.zeros_like(self.counts)

    @property
    def usage(self) -> Float[Tensor, ""]:
        """Share of codes seen at least once, in [0, 1]."""
        return (self.counts > 0).float().mean()

    @property
    def reachable(self) -> Float[Tensor, ""]:
        """Share of the codes whose digits all occur; 1 for codes of one digit.

        Below 1, a level of some channel is never used.
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
        """exp(entropy): number of equally frequent codes with the same entropy."""
        return torch.exp2(self.entropy_bits)
