"""Faster inference of a tokenizer: memory layout, precision, compilation, fewer operations."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.inference.config import InferenceConfig
from tokenizer.inference.residual import FastNormSilu, FastResBlock
from tokenizer.inference.winograd import WinogradConv2d
from tokenizer.load import Tokenizer
from tokenizer.networks.autoencoder import ResBlock
from tokenizer.networks.norms import NormSilu
from tokenizer.networks.vqgan_blocks import NearestUpsample, VqganResBlock


def for_inference(tokenizer: Tokenizer, config: InferenceConfig) -> Tokenizer:
    """A copy of the tokenizer with the settings of `config`; the original is unchanged.

    Raises:
        BadInput: a setting that the network `refuses`, such as `winograd` of a video tokenizer.
    """
    tokenizer.network.check_settings(**asdict(config))
    network = copy.deepcopy(tokenizer.network)
    if config.winograd:
        replace_layers(network, NearestUpsample, _winograd_upsampling)
        replace_layers(network, NormSilu, FastNormSilu)
        for block in (ResBlock, VqganResBlock):
            replace_layers(network, block, FastResBlock)
        replace_layers(network, nn.Conv2d, _winograd)
    if config.fold:
        replace_layers(network, NearestUpsample, folded)
    if config.channels_last:
        network.to(memory_format=network.memory_format)  # type: ignore[call-overload]
    for name, part in network.named_children():
        if name == "quantizer":
            continue
        if config.dtype != "float32":
            part.to(getattr(torch, config.dtype))
            part.register_forward_pre_hook(_cast(getattr(torch, config.dtype)))
        if config.frames_at_once:
            part.forward = _in_parts(part.forward, config.frames_at_once)
        if config.compile and not isinstance(part, nn.Identity):
            part.compile()
    return Tokenizer(network, tokenizer.hash, tokenizer.manifest)


def _in_parts(
    forward: Callable[[Tensor], Tensor], size: int
) -> Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n ..."]]:
    return lambda x: torch.cat([forward(part) for part in x.split(size)])


def replace_layers(
    network: nn.Module, kind: type[nn.Module], made_of: Callable[[Any], nn.Module]
) -> None:
    """Replace every layer of exactly this class by `made_of(layer)`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is kind:
                setattr(module, name, made_of(child))


def _winograd(conv: nn.Conv2d) -> nn.Module:
    """Winograd where it is faster: few channels save little, many make large weights."""
    few, many = sorted((conv.in_channels, conv.out_channels))
    fits = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.padding == (1, 1)
    return WinogradConv2d(conv) if fits and few >= 64 and many <= 256 else conv


def _winograd_upsampling(layer: NearestUpsample) -> nn.Module:
    """Winograd where it is faster than folding, with its larger products."""
    return WinogradConv2d(layer) if 64 <= layer.in_channels <= 128 else layer


def folded(layer: NearestUpsample) -> nn.ConvTranspose2d:
    """One transposed 4x4 convolution: 2x2 repetition and the 3x3 kernel, convolved."""
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
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in inputs)

    return hook
