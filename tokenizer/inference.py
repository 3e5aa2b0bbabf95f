"""The same tokenizer, computed faster: layout, precision, compilation, fewer operations."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.load import Tokenizer
from tokenizer.vqgan import NearestUpsample
from training.errors import BadInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class InferenceConfig:
    """How a tokenizer computes; only `dtype` changes tokens by more than rounding of float32.

    Attributes:
        dtype: "float32" or "bfloat16", of weights and activations; codes stay float32.
        channels_last: keep the channels of a pixel together in memory.
        fold: nearest-neighbour upsampling and the 3x3 after it become one transposed
            convolution, with 16 multiplications where there were 36.
        compile: torch.compile both halves; the first batch of every size takes minutes.
    """

    dtype: str = "float32"
    channels_last: bool = True
    fold: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BadInput(f"dtype={self.dtype}: use one of {', '.join(DTYPES)}")


def for_inference(tokenizer: Tokenizer, config: InferenceConfig) -> Tokenizer:
    """A copy of the tokenizer that computes as `config` says; the original stays as it is."""
    network = copy.deepcopy(tokenizer.autoencoder)
    if config.fold:
        fold_upsampling(network)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, part in network.named_children():
        if name == "quantizer":
            continue
        if config.dtype != "float32":
            part.to(DTYPES[config.dtype])
            part.register_forward_pre_hook(_cast(DTYPES[config.dtype]))
        if config.compile and not isinstance(part, nn.Identity):
            part.compile()
    return Tokenizer(network, tokenizer.hash, tokenizer.manifest)


def fold_upsampling(network: nn.Module) -> None:
    """Replace every `NearestUpsample` by one transposed convolution that computes the same."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NearestUpsample):
                setattr(module, name, folded(child))


def folded(layer: NearestUpsample) -> nn.ConvTranspose2d:
    """A pixel that is repeated 2x2 and seen through 3x3 spreads over 4x4: the two, convolved."""
    channels = layer.in_channels
    out = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, device="meta")
    kernel: Float[Tensor, "out in 3 3"] = layer.weight.detach().flip(2, 3)  # spreads, not gathers
    ones = kernel.new_ones(1, 1, 2, 2)
    spread = F.conv2d(kernel.flatten(0, 1)[:, None], ones, padding=1)
    out.weight = nn.Parameter(spread.unflatten(0, kernel.shape[:2])[:, :, 0].transpose(0, 1))
    assert layer.bias is not None
    out.bias = nn.Parameter(layer.bias.detach().clone())
    return out.requires_grad_(False).train(layer.training)


@torch.no_grad()
def share_changed(before: Tokenizer, after: Tokenizer, frames: Float[Tensor, "n 3 h w"]) -> float:
    """Share of the tokens of frames in [-1, 1] that differ between two tokenizers."""
    return float((before.encode(frames) != after.encode(frames)).float().mean())


def _cast(dtype: torch.dtype) -> Any:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.to(dtype) for x in inputs)

    return hook
