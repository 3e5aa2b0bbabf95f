"""Quantizers of published weights, for inference: nearest code, and signs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.quantizers.base import Quantized, Quantizer
from training.errors import BadInput


@dataclass(frozen=True)
class NearestConfig:
    """A table of `num_codes` codes with `dim` channels."""

    num_codes: int
    dim: int

    def build(self) -> "Nearest":
        return Nearest(self)


class Nearest(Quantizer):
    """The code with the smallest Euclidean distance (van den Oord et al. 2017, eq. 1)."""

    def __init__(self, config: NearestConfig) -> None:
        super().__init__()
        self.dim, self.vocab_size = config.dim, config.num_codes
        self.codebook: Tensor
        self.register_buffer("codebook", torch.zeros(config.num_codes, config.dim))

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        indices = self.encode(z)
        codes = self.decode(indices).to(z.dtype)
        return Quantized(z + (codes - z).detach(), indices, {})

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        table = self.codebook.float()
        scores = table.square().sum(1) - 2 * z.detach().float() @ table.T  # |z|^2 is the same
        return scores.argmin(-1)

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return self.codebook[indices]


@dataclass(frozen=True)
class SignConfig:
    """One bit per channel; in "big" order channel 0 is the most significant one."""

    num_bits: int = 18
    bit_order: str = "big"

    def __post_init__(self) -> None:
        if self.bit_order not in ("big", "little"):
            raise BadInput(f"bit_order={self.bit_order}: use big or little")

    def build(self) -> "Sign":
        return Sign(self)


class Sign(Quantizer):
    """Lookup-free: a code is the signs of the latent (Yu et al. 2023, arXiv 2310.05737, eq. 4)."""

    def __init__(self, config: SignConfig) -> None:
        super().__init__()
        self.dim, self.vocab_size = config.num_bits, 2**config.num_bits
        self.bit_order = config.bit_order
        places = torch.arange(config.num_bits)
        places = places.flip(0) if config.bit_order == "big" else places
        self._places: Tensor
        self.register_buffer("_places", places, persistent=False)

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        indices = self.encode(z)
        codes = self.decode(indices).to(z.dtype)
        return Quantized(z + (codes - z).detach(), indices, {})

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        return ((z > 0).long() << self._places).sum(-1)

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return ((indices.unsqueeze(-1) >> self._places) & 1).float() * 2 - 1
