"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.quantizers.base import Quantized, Quantizer


class FSQ(Quantizer):
    """Rounds every channel to one of a few levels; their product is the codebook.

    Follows section 3.1 and appendix A.1 of the paper (bound, round, straight-through
    gradient), with the half-step offset for even numbers of levels. Codes are normalised
    to [-1, 1]; for even L they run from -1 to 1 - 2/L. Index = sum_d digit_d * basis_d,
    where channel 0 varies fastest. It has no parameters, and so no auxiliary loss.

    Args:
        levels: levels per channel, each at least 2.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.factors, self.vocab_size = tuple(levels), math.prod(levels)
        self.dim = len(levels)
        basis = torch.tensor([math.prod(levels[:d]) for d in range(len(levels))])
        self._levels: Tensor
        self._basis: Tensor
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)
        self.register_buffer("_basis", basis, persistent=False)

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        codes = self.quantize(z)
        return Quantized(codes, self.codes_to_indices(codes), {})

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        return self.codes_to_indices(self.quantize(z))

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return self.indices_to_codes(indices)

    def bound(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Squash each channel so that rounding gives exactly its number of levels (eq. 1)."""
        half = (self._levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(z + shift) * half - offset

    def quantize(self, z: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Round to the nearest level; the gradient passes through the rounding unchanged."""
        bounded = self.bound(z.float())
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self._levels // 2)

    def codes_to_indices(self, codes: Float[Tensor, "... d"]) -> Int[Tensor, "..."]:
        half = self._levels // 2
        digits = (codes.detach() * half).round().long() + half
        return (digits * self._basis).sum(-1)

    def indices_to_codes(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """Inverse of `codes_to_indices`."""
        digits = (indices.unsqueeze(-1) // self._basis) % self._levels
        half = self._levels // 2
        return (digits - half) / half
