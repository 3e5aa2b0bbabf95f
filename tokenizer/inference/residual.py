"""Residual blocks in fewer passes over memory, for inference on CPUs.

Norm and SiLU are one C function (`norm_silu.c`); the addition is done where Winograd's convolution
writes its pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.inference.native import Functions, Normalised, addresses, functions_for, pixels_of
from tokenizer.inference.winograd import WinogradConv2d
from tokenizer.networks.autoencoder import ResBlock
from tokenizer.networks.norms import NormSilu
from tokenizer.networks.vqgan_blocks import VqganResBlock

LANES, PART = 8, 256  # of norm_silu.c


class FastNormSilu(nn.Module):
    """Replaces a group norm with SiLU.

    Attributes:
        in_place: whether nobody else needs what it reads.
    """

    def __init__(self, norm: NormSilu) -> None:
        super().__init__()
        self.norm, self.in_place = norm, False

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        functions = functions_for(x) if x.shape[1] % LANES == 0 else None
        return self.norm(x) if functions is None else self._native(functions, x)

    def _native(
        self, functions: Functions, x: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        pixels = pixels_of(x)
        count, height, width, channels = pixels.shape
        made = pixels if self.in_place else torch.empty_like(pixels)
        sums = x.new_empty(count, -(-height * width // PART), 2, channels)
        affine = x.new_empty(count, 2, channels)
        pointers = addresses(pixels, self.norm.weight, self.norm.bias, made, sums, affine)
        numbers = count, height * width, channels, self.norm.num_groups, torch.get_num_threads()
        functions.norm_silu(Normalised(*pointers, *numbers, self.norm.eps))
        return made.permute(0, 3, 1, 2)


class FastResBlock(nn.Module):
    """Replaces a pre-activation residual block, whose norms are replaced."""

    def __init__(self, block: ResBlock | VqganResBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        assert isinstance(self.norm2, FastNormSilu)
        self.norm2.in_place = True
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.shortcut = block.shortcut

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        hidden = self.norm2(self.conv1(self.norm1(x)))
        if isinstance(self.conv2, WinogradConv2d):
            return self.conv2(hidden, plus=self.shortcut(x))
        return self.shortcut(x) + self.conv2(hidden)
