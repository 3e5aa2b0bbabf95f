"""The convolutional image autoencoder: frames <-> token grids."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from tokenizer.networks.base import PixelNetwork
from tokenizer.networks.config import AutoencoderConfig
from tokenizer.networks.norms import NormSilu
from tokenizer.quantizers.kinds import build_quantizer
from training.optimization.recompute import Layers


class Autoencoder(PixelNetwork):
    """Autoencoder: encode to token grids, decode to frames; values are in [-1, 1]."""

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder = ConvEncoder(config, self.quantizer.dim)
        self.decoder = ConvDecoder(config, self.quantizer.dim)

    @property
    def last_layer(self) -> Tensor:
        """Weight where the adaptive GAN weight compares gradients (Esser et al. 2021, eq. 7)."""
        return self.decoder.conv_out.weight

    def block_kernels(self) -> dict[str, nn.Parameter]:
        """Kernels between the first and the last convolution by name, for Muon."""
        return {
            name: kernel
            for name, kernel in self.named_parameters()
            if ".layers." in name and kernel.ndim == 4 and not name.startswith("encoder.layers.0.")
        }

    def latents(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        return rearrange(self.encoder(frames), "n c h w -> n h w c")

    def reconstruct(self, codes: Float[Tensor, "n gh gw dim"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(rearrange(codes, "n h w c -> n c h w"))


class ConvEncoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        self.patch = config.patch
        width = config.channels[0]
        layers: list[nn.Module] = [nn.Conv2d(3 * config.patch**2, width, 3, padding=1)]
        for level, channels in enumerate(config.channels):
            if level:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            for _ in range(config.num_res_blocks):
                layers.append(ResBlock(width, channels))
                width = channels
        layers += middle(width, config.attention)
        self.layers = Layers(*layers)
        self.norm_out = norm(width, NormSilu)
        self.conv_out = nn.Conv2d(width, code_dim, 1)

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d gh gw"]:
        hidden = self.layers(F.pixel_unshuffle(frames, self.patch))
        return self.conv_out(self.norm_out(hidden))


class ConvDecoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        self.patch = config.decoder_patch
        width = config.channels[-1]
        layers: list[nn.Module] = [nn.Conv2d(code_dim, width, 3, padding=1)]
        layers += middle(width, config.attention)
        for level, channels in reversed(list(enumerate(config.channels))):
            for _ in range(config.num_res_blocks + 1):
                layers.append(ResBlock(width, channels))
                width = channels
            if level:
                layers.append(Upsample(width))
        for channels in config.upsampled:
            layers += [ShuffleUp(width, channels), ResBlock(channels, channels)]
            width = channels
        self.layers = Layers(*layers)
        self.norm_out = norm(width, NormSilu)
        self.conv_out = nn.Conv2d(width, 3 * self.patch**2, 3, padding=1)

    def forward(self, codes: Float[Tensor, "n d gh gw"]) -> Float[Tensor, "n 3 h w"]:
        self.features = self.norm_out(self.layers(codes))
        return F.pixel_shuffle(self.conv_out(self.features), self.patch)

    def last_layer_gradient(
        self, gradient: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "out in k k"]:
        """Gradient of the last layer's weight, from the pixel gradient of the last forward pass."""
        shape = (self.conv_out.out_channels, self.conv_out.in_channels, 3, 3)
        spread = F.pixel_unshuffle(gradient.float(), self.patch)
        return conv2d_weight(self.features.detach().float(), shape, spread, padding=1)


class ResBlock(nn.Module):
    """Pre-activation residual block, as in VQGAN (Esser et al. 2021)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = norm(in_channels, NormSilu)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, NormSilu)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.norm1(x))
        return self.shortcut(x) + self.conv2(self.norm2(hidden))


class SpatialAttention(nn.Module):
    """Single-head self-attention over the positions of one frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-2]
        q, k, v = rearrange(self.qkv(self.norm(x)), "n (three c) h w -> three n 1 (h w) c", three=3)
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=height))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ShuffleUp(nn.Module):
    """Twice the resolution: a convolution to four times the channels, then depth to space.

    Source: Shi et al. 2016, arXiv 1609.05158. It computes at the lower resolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        return F.pixel_shuffle(self.conv(x), 2)


def middle(channels: int, attention: bool) -> list[nn.Module]:
    attend = [SpatialAttention(channels)] if attention else []
    return [ResBlock(channels, channels), *attend]


def norm(channels: int, kind: type[nn.GroupNorm] = nn.GroupNorm) -> nn.GroupNorm:
    """GroupNorm with at least four channels per group and at most 32 groups."""
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0 and channels // g >= 4)
    return kind(groups, channels, eps=1e-6)
