"""The VQGAN family: taming (Esser et al. 2021, arXiv 2012.09841) and Open-MAGVIT2 (2409.04410).

All share one architecture; a `style` holds the differences. commaVQ, Driving_Simulator, LlamaGen
and IBQ have the taming style, 1X the magvit2 style. `tokenizer.published` opens the published
weights.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from tokenizer.networks.base import PixelNetwork
from tokenizer.networks.config import GROUPS, STYLES, VQGANConfig
from tokenizer.networks.norms import NormSilu
from tokenizer.networks.vqgan_blocks import (
    EPS,
    AdaptiveGroupNorm,
    NearestUpsample,
    ShuffleUpsample,
    VqganAttention,
    VqganDownsample,
    VqganResBlock,
)
from tokenizer.quantizers.kinds import build_quantizer
from training.optimization.recompute import Layers, maybe_checkpoint


class VQGAN(PixelNetwork):
    """Encode to token grids, decode to frames in [-1, 1].

    Input frames are in the units of its `Preprocessing`: commaVQ was trained on 0..255.
    """

    config: VQGANConfig

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        projected, dim = STYLES[config.style].projected, self.quantizer.dim
        latent = config.z_channels if projected else dim
        self.encoder = VqganEncoder(config, latent)
        self.decoder = VqganDecoder(config, latent)
        self.quant_conv = nn.Conv2d(latent, dim, 1) if projected else nn.Identity()
        self.post_quant_conv = nn.Conv2d(dim, latent, 1) if projected else nn.Identity()

    def latents(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        return rearrange(self.quant_conv(self.encoder(frames)), "n c h w -> n h w c")

    def reconstruct(self, codes: Float[Tensor, "n gh gw dim"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(self.post_quant_conv(rearrange(codes, "n h w c -> n c h w")))


class VqganEncoder(nn.Module):
    def __init__(self, config: VQGANConfig, latent: int) -> None:
        super().__init__()
        style = STYLES[config.style]
        width, last = config.width, len(config.channels) - 1
        layers: dict[str, nn.Module] = {}
        layers["conv_in"] = nn.Conv2d(3, width, 3, padding=1, bias=style.bias)
        for level, channels in enumerate(config.channels):
            attends = style.attention and level in config.attention_levels
            for i in range(config.num_res_blocks):
                layers[f"down_{level}_block_{i}"] = VqganResBlock(width, channels, style.bias)
                width = channels
                if attends:
                    layers[f"down_{level}_attention_{i}"] = VqganAttention(width)
            if level < last:
                layers[f"down_{level}_resample"] = VqganDownsample(width, style.centred)
        layers |= middle(config)
        self.layers = named(layers, Layers())
        self.norm_out = NormSilu(GROUPS, width, EPS)
        size = 3 if style.projected else 1
        self.conv_out = nn.Conv2d(width, latent, size, padding=size // 2)

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n latent gh gw"]:
        return self.conv_out(self.norm_out(self.layers(frames)))


class VqganDecoder(nn.Module):
    def __init__(self, config: VQGANConfig, latent: int) -> None:
        super().__init__()
        style = STYLES[config.style]
        width = config.channels[-1]
        layers: dict[str, nn.Module] = {"conv_in": nn.Conv2d(latent, width, 3, padding=1)}
        layers |= middle(config)
        for level, channels in reversed(list(enumerate(config.channels))):
            if style.adaptive:
                layers[f"up_{level}_norm"] = AdaptiveGroupNorm(latent, width)
            attends = style.attention and level in config.attention_levels
            for i in range(config.num_res_blocks + style.extra_blocks):
                layers[f"up_{level}_block_{i}"] = VqganResBlock(width, channels, style.bias)
                width = channels
                if attends:
                    layers[f"up_{level}_attention_{i}"] = VqganAttention(width)
            if level:
                upsample = ShuffleUpsample if style.shuffle else NearestUpsample
                layers[f"up_{level}_resample"] = upsample(width)
        self.layers = named(layers, Guided())
        self.norm_out = NormSilu(GROUPS, width, EPS)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: Float[Tensor, "n latent gh gw"]) -> Float[Tensor, "n 3 h w"]:
        self.features = self.norm_out(self.layers(latents))
        return self.conv_out(self.features)

    def last_layer_gradient(
        self, gradient: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "out in k k"]:
        """Gradient of the last layer's weight, from the pixel gradient of the last forward pass."""
        shape = tuple(self.conv_out.weight.shape)
        return conv2d_weight(self.features.detach().float(), shape, gradient.float(), padding=1)


def middle(config: VQGANConfig) -> dict[str, nn.Module]:
    """Blocks at the lowest resolution: two around an attention, or residual blocks alone."""
    style, width = STYLES[config.style], config.channels[-1]
    count = 2 if style.attention else config.num_res_blocks
    blocks: dict[str, nn.Module] = {"mid_block_0": VqganResBlock(width, width, style.bias)}
    if style.attention:
        blocks["mid_attention"] = VqganAttention(width)
    return blocks | {
        f"mid_block_{i}": VqganResBlock(width, width, style.bias) for i in range(1, count)
    }


class Guided(Layers):
    """A sequence of layers whose adaptive norms also read the input of the first layer."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for layer in self:
            inputs = (hidden, x) if isinstance(layer, AdaptiveGroupNorm) else (hidden,)
            hidden = maybe_checkpoint(layer, *inputs, recompute=self.recompute)
        return hidden


def named(layers: dict[str, nn.Module], row: Layers) -> Layers:
    for name, layer in layers.items():
        row.add_module(name, layer)
    return row
