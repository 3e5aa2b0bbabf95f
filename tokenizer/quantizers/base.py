"""What every quantizer is: latents in; codes, indices and the losses of its own out."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer made of latents.

    Attributes:
        codes: [... dim] what the decoder sees, with a straight-through gradient.
        indices: [...] int64, the tokens.
        losses: weighted terms to be added to the training loss, by name; scalars.
    """

    codes: Float[Tensor, "... dim"]
    indices: Int[Tensor, "..."]
    losses: dict[str, Tensor]


class Quantizer(nn.Module):
    """Base of the quantizers; latents and codes have their channels last.

    Attributes:
        dim: channels of the latents it takes and of the codes it gives.
        vocab_size: number of different indices.
        factors: sizes whose product is the vocabulary, first varies fastest; () where it is whole.
        bit_order: "little" or "big" where the index is a number of binary digits, else "".
    """

    dim: int
    vocab_size: int
    factors: tuple[int, ...] = ()
    bit_order: str = ""

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        """Quantize for training; a codebook learns from `z` where `learning` says so."""
        raise NotImplementedError

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        """Indices of latents; changes nothing."""
        raise NotImplementedError

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        """Codes of indices, as the decoder of the autoencoder sees them."""
        raise NotImplementedError

    def restart(self, dead: Bool[Tensor, " code"], z: Float[Tensor, "n dim"]) -> bool:
        """Move dead codes onto latents drawn from `z`; False where there is no codebook to move."""
        return False

    @property
    def learning(self) -> bool:
        """In training mode with gradients on: pictures and FLOP counts must leave no trace."""
        return self.training and torch.is_grad_enabled()

    @property
    def writes_parameters(self) -> bool:
        """Whether `forward` puts values into parameters, which FSDP would lose."""
        return False


def at_least_float32(z: Tensor) -> Tensor:
    """Under bf16 a nearest code, and the average of a codebook, would be another."""
    return z.to(torch.promote_types(z.dtype, torch.float32))
