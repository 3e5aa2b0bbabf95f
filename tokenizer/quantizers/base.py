"""The interface of quantizers: latents in; codes, indices and losses out."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    """The output of a quantizer.

    Attributes:
        codes: [... dim] input of the decoder, with a straight-through gradient.
        indices: [...] int64, the tokens.
        losses: weighted scalar terms of the training loss, by name.
    """

    codes: Float[Tensor, "... dim"]
    indices: Int[Tensor, "..."]
    losses: dict[str, Tensor]


class Quantizer(nn.Module):
    """Base of the quantizers; latents and codes have channels last.

    Attributes:
        dim: channels of the latents and of the codes.
        vocab_size: number of different indices.
        factors: factor sizes of the vocabulary, the first varies fastest; () for a single factor.
        bit_order: "little" or "big" for a binary index, else "".
    """

    dim: int
    vocab_size: int
    factors: tuple[int, ...] = ()
    bit_order: str = ""

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        """Quantize for training; a codebook learns from `z` if `learning` is True."""
        raise NotImplementedError

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        """Indices of latents; does not train."""
        raise NotImplementedError

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        """Codes of indices, the input of the autoencoder's decoder."""
        raise NotImplementedError

    def restart(self, dead: Bool[Tensor, " code"], z: Float[Tensor, "n dim"]) -> bool:
        """Move dead codes onto latents drawn from `z`; False where there is no codebook."""
        return False

    @property
    def learning(self) -> bool:
        """True in training mode with gradients: pictures and FLOP counts must not train."""
        return self.training and torch.is_grad_enabled()

    @property
    def writes_parameters(self) -> bool:
        """Whether `forward` writes into parameters, which FSDP would lose."""
        return False


def at_least_float32(z: Tensor) -> Tensor:
    """Upcast to at least float32: in bf16 the nearest code and codebook averages change."""
    return z.to(torch.promote_types(z.dtype, torch.float32))
