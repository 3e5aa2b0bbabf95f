"""Several quantizers per token: on successive residuals, or on groups of channels."""

from collections.abc import Sequence
from itertools import chain
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.quantizers.base import Quantized, Quantizer, at_least_float32
from tokenizer.quantizers.config import ResidualConfig
from training.errors import BadInput

LARGEST_VOCABULARY = 2**32  # what a token store can hold


class Composite(Quantizer):
    """Quantizers whose indices are the digits of one index; the first varies fastest."""

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        first, number = self.quantizers[0], len(parts)
        self.vocab_size = first.vocab_size**number
        if self.vocab_size > LARGEST_VOCABULARY:
            raise BadInput(
                f"quantizer: {number} times {first.vocab_size} codes are a vocabulary of "
                f"{self.vocab_size}, a token store holds 2^32; take fewer, or smaller ones"
            )
        self.factors = (first.factors or (first.vocab_size,)) * number
        bases = [first.vocab_size**i for i in range(number)]
        self._bases: Tensor
        self.register_buffer("_bases", torch.tensor(bases), persistent=False)
        self._digits = first.vocab_size

    @property
    def quantizers(self) -> list[Quantizer]:
        return [cast(Quantizer, part) for part in self.parts]

    @property
    def writes_parameters(self) -> bool:
        return any(part.writes_parameters for part in self.quantizers)

    def _join(self, indices: list[Int[Tensor, "..."]]) -> Int[Tensor, "..."]:
        return (torch.stack(indices, -1) * self._bases).sum(-1)

    def _codes(self, indices: Int[Tensor, "..."]) -> list[Float[Tensor, "... d"]]:
        digits = (indices.unsqueeze(-1) // self._bases % self._digits).unbind(-1)
        return [part.decode(digit) for part, digit in zip(self.quantizers, digits, strict=True)]


class Residual(Composite):
    """Every stage quantizes the residual of the stages before; codes are summed.

    Residuals follow the straight-through path, so the gradient of the sum is that of one
    quantizer. Only the first stage's own commitment term reaches the encoder; the term of the
    whole sum is the effective one.
    """

    def __init__(self, config: ResidualConfig, parts: Sequence[Quantizer]) -> None:
        super().__init__(parts)
        self.dim = self.quantizers[0].dim
        self.commitment_weight = config.commitment_weight
        self.scales = [config.scale**i for i in range(config.num_stages)]

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        codes: Tensor | float = 0.0
        indices, losses = [], []
        for part, scale in zip(self.quantizers, self.scales, strict=True):
            quantized = part((z - codes) / scale)
            codes = codes + scale * quantized.codes
            indices.append(quantized.indices)
            losses.append(quantized.losses)
        assert isinstance(codes, Tensor)
        if self.commitment_weight:
            commitment = F.mse_loss(at_least_float32(z), codes.detach())
            losses.append({"commitment": self.commitment_weight * commitment})
        return Quantized(codes, self._join(indices), _added(losses))

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        indices = []
        for part, scale in zip(self.quantizers, self.scales, strict=True):
            indices.append(part.encode(z / scale))
            z = z - scale * part.decode(indices[-1])
        return self._join(indices)

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        codes = torch.stack(self._codes(indices), -1)
        return (codes * codes.new_tensor(self.scales)).sum(-1)


class Product(Composite):
    """Every group of channels has its own quantizer; codes are concatenated."""

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        super().__init__(parts)
        self.dim = self.quantizers[0].dim * len(parts)

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        groups = z.chunk(len(self.parts), -1)
        done = [part(group) for part, group in zip(self.quantizers, groups, strict=True)]
        codes = torch.cat([quantized.codes for quantized in done], -1)
        indices = self._join([quantized.indices for quantized in done])
        return Quantized(codes, indices, _added([quantized.losses for quantized in done]))

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        groups = z.chunk(len(self.parts), -1)
        return self._join(
            [p.encode(group) for p, group in zip(self.quantizers, groups, strict=True)]
        )

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return torch.cat(self._codes(indices), -1)


def _added(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Terms of the same name, summed."""
    total: dict[str, Tensor] = {}
    for name, value in chain.from_iterable(terms.items() for terms in losses):
        total[name] = total[name] + value if name in total else value
    return total
