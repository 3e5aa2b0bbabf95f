"""Blocks of the video autoencoder; all are causal and take (x, past)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks.video.causal_conv import CausalConv, FactorizedConv, PastFrames, at_start


class FrameNorm(nn.GroupNorm):
    """Normalises each frame separately, over channels and positions."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", t=x.shape[2])


class VideoResBlock(nn.Module):
    """Pre-activation residual block with factorised convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = FactorizedConv(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = FactorizedConv(out_channels, out_channels)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else CausalConv(in_channels, out_channels)

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b d t h w"]:
        hidden = self.conv1(F.silu(self.norm1(x)), past)
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)), past)


class VideoAttention(nn.Module):
    """Single-head attention over a frame's positions, then over time at each position.

    Args:
        attention_steps: latent frames that a position attends to, itself included; 0: all.
    """

    def __init__(self, channels: int, attention_steps: int = 0) -> None:
        super().__init__()
        self.space = SpaceAttention(channels)
        self.time = TimeAttention(channels, attention_steps)

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b c t h w"]:
        return self.time(self.space(x), past)


class SpaceAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.qkv = CausalConv(channels, 3 * channels)
        self.proj = CausalConv(channels, channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        pattern = "b (three c) t h w -> three (b t) 1 (h w) c"
        q, k, v = rearrange(self.qkv(self.norm(x)), pattern, three=3)
        out = F.scaled_dot_product_attention(q, k, v)
        _, _, t, h, _ = x.shape
        return x + self.proj(rearrange(out, "(b t) 1 (h w) c -> b c t h w", t=t, h=h))


class TimeAttention(nn.Module):
    """Causal attention over time at each position; keys and values are kept in `past`."""

    def __init__(self, channels: int, attention_steps: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.qkv = CausalConv(channels, 3 * channels)
        self.proj = CausalConv(channels, channels)
        self.attention_steps = attention_steps

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b c t h w"]:
        _, _, t, h, w = x.shape
        pattern = "b (three c) t h w -> three (b h w) 1 t c"
        q, *kv = rearrange(self.qkv(self.norm(x)), pattern, three=3)
        keys_values = torch.stack(kv)
        if past is not None:
            if self in past:
                keys_values = torch.cat([past[self], keys_values], 3)
            past[self] = keys_values[:, :, :, self._first_kept(keys_values.shape[3]) :].clone()
        # The number of keys decides the order of a sum. In low precision the rounding would make
        # tokens depend on the batches of a stream.
        few = past is not None and x.dtype == torch.bfloat16
        q, (k, v) = (each.double() if few else each for each in (q, keys_values))
        mask = self._mask(t, k.shape[2], x.device)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).to(x.dtype)
        return x + self.proj(rearrange(out, "(b h w) 1 t c -> b c t h w", h=h, w=w))

    def _first_kept(self, num_keys: int) -> int:
        return max(0, num_keys - self.attention_steps + 1) if self.attention_steps else 0

    def _mask(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """True where a query may attend; the last query belongs to the last key."""
        seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
        mask = seen.tril(num_keys - num_queries)
        if self.attention_steps:
            mask = mask.triu(num_keys - num_queries - self.attention_steps + 1)
        return mask


class SpaceTimeDownsample(nn.Module):
    """Halves height and width, then time (1 + 2n frames become 1 + n); each adds a pooled path."""

    def __init__(self, channels: int, space: bool, time: bool) -> None:
        super().__init__()
        self.space = CausalConv(channels, channels, (1, 3, 3), (1, 2, 2)) if space else None
        self.time = CausalConv(channels, channels, (3, 1, 1), (2, 1, 1)) if time else None
        self.mix = CausalConv(channels, channels)

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        if self.space is not None:
            x = F.pad(x, (0, 1, 0, 1, 0, 0))
            x = self.space(x) + mean_pool(x, (1, 2, 2))
        if self.time is not None:
            if at_start(past):
                x = torch.cat([x[:, :, :1], x], 2)
            x = self.time(x, past) + mean_pool(x, (2, 1, 1))
        return self.mix(x)


def mean_pool(
    x: Float[Tensor, "b c t h w"], kernel: tuple[int, int, int]
) -> Float[Tensor, "b c t2 h2 w2"]:
    """Means of blocks, computed in float32: CPUs lack a low-precision kernel."""
    return F.avg_pool3d(x.float(), kernel).to(x.dtype)


class SpaceTimeUpsample(nn.Module):
    """Doubles time (1 + n frames become 1 + 2n), then height and width."""

    def __init__(self, channels: int, space: bool, time: bool) -> None:
        super().__init__()
        self.time = CausalConv(channels, channels, (3, 1, 1)) if time else None
        self.space = CausalConv(channels, channels, (1, 3, 3), padding=1) if space else None
        self.mix = CausalConv(channels, channels)

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b c t2 h2 w2"]:
        if self.time is not None:
            x = x.repeat_interleave(2, 2)
            if at_start(past):
                x = x[:, :, 1:]
            x = self.time(x, past) + x
        if self.space is not None:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = self.space(x) + x
        return self.mix(x)
