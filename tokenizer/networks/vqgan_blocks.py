"""Blocks of the VQGAN family; `tokenizer.networks.vqgan` puts them together."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks.config import EPS, GROUPS
from tokenizer.networks.norms import NormSilu


class VqganResBlock(nn.Module):
    """Pre-activation residual block; 1x1 shortcut where the number of channels changes."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = NormSilu(GROUPS, in_channels, EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = NormSilu(GROUPS, out_channels, EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        hidden = self.conv1(self.norm1(x))
        return self.shortcut(x) + self.conv2(self.norm2(hidden))


class VqganAttention(nn.Module):
    """Single-head self-attention over the positions of one frame, scaled by channels^-0.5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, EPS)
        self.q, self.k, self.v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        seen = self.norm(x)
        q, k, v = (rearrange(f(seen), "n c h w -> n 1 (h w) c") for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[-2]))


class VqganDownsample(nn.Conv2d):
    """Strided 3x3; if not centred, it pads one row below and one column to the right."""

    def __init__(self, channels: int, centred: bool) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1 if centred else 0)
        self.centred = centred

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.centred else F.pad(x, (0, 1, 0, 1)))


class NearestUpsample(nn.Conv2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    @staticmethod
    def doubled(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        return super().forward(self.doubled(x))


class ShuffleUpsample(nn.Conv2d):
    """Convolution to four times the channels, then depth to space (row and column first)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(x), "n (by bx c) h w -> n c (h by) (w bx)", by=2, bx=2)


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm with scale and shift from the standard deviation and mean of a frame's codes."""

    def __init__(self, code_dim: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, EPS, affine=False)
        self.scale, self.shift = (nn.Linear(code_dim, channels) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "n c h w"], codes: Float[Tensor, "n d gh gw"]
    ) -> Float[Tensor, "n c h w"]:
        scale = self.scale((codes.var((2, 3)) + EPS).sqrt())  # unbiased, as published
        shift = self.shift(codes.mean((2, 3)))
        return scale[:, :, None, None] * self.norm(x) + shift[:, :, None, None]
