"""Factorised attention over a clip: within each frame, then over the past of each cell.

The transformer of Genie (arXiv 2402.15391, section 2) as 1X published it
(github.com/1x-technologies/1xgpt): no norm before the attention over time.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.dynamics.masked.config import MaskedConfig


class TimeCache:
    """Keys and values of the frames read so far: [layer batch space head time channel].

    Attributes:
        length: frames that stay; a frame read next is written behind them.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys, self.values, self.length = keys, values, length

    def expand(self, num_futures: int) -> "TimeCache":
        """The same past for `num_futures` rows per example, in example-major order."""
        keys = self.keys.repeat_interleave(num_futures, dim=1)
        values = self.values.repeat_interleave(num_futures, dim=1)
        return TimeCache(keys, values, self.length)

    def extend(
        self,
        layer: int,
        key: Float[Tensor, "batch space head time channel"],
        value: Float[Tensor, "batch space head time channel"],
    ) -> tuple[Tensor, Tensor]:
        """Write new frames behind those that stay; returns everything up to them."""
        stop = self.length + key.shape[3]
        self.keys[layer, :, :, :, self.length : stop] = key
        self.values[layer, :, :, :, self.length : stop] = value
        return self.keys[layer, ..., :stop, :], self.values[layer, ..., :stop, :]


class SpaceTimeAttention(nn.Module):
    """Multi-head attention along one axis of a clip.

    With `qk_norm`, queries and keys share one LayerNorm over a head's channels.
    """

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.dim, config.dim, bias=config.proj_bias)
        self.norm = nn.LayerNorm(config.dim // config.num_heads) if config.qk_norm else None

    def over_space(
        self, x: Float[Tensor, "batch time space dim"]
    ) -> Float[Tensor, "batch time space dim"]:
        """Every cell attends to all cells of its frame."""
        query, key, value = (y.flatten(0, 1).transpose(1, 2) for y in self._project(x))
        out = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        out = out.transpose(1, 2).flatten(2)
        return self.proj(out.unflatten(0, x.shape[:2]))

    def over_time(
        self,
        x: Float[Tensor, "batch time space dim"],
        mask: Bool[Tensor, "time past"] | None = None,
        cache: TimeCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch time space dim"]:
        """Every cell attends to itself in this frame and those before it.

        Args:
            mask: what attends to what, in place of that.
            cache: further past; a single new frame, or a first reading of an empty cache.
        """
        query, key, value = (y.permute(0, 2, 3, 1, 4) for y in self._project(x))
        if cache is not None:
            assert x.shape[1] == 1 or cache.length == 0
            key, value = cache.extend(layer, key, value)
        is_causal = mask is None and x.shape[1] > 1
        out = F.scaled_dot_product_attention(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            attn_mask=mask,
            is_causal=is_causal,
            scale=self.scale,
        )
        out = out.unflatten(0, (len(x), -1)).permute(0, 3, 1, 2, 4)
        return self.proj(out.flatten(3))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch time space head channel]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(3)
        if self.norm is not None:
            query, key = self.norm(query), self.norm(key)
        return query, key, value


class SpaceTimeBlock(nn.Module):
    """Attention over space, attention over time, MLP; with `qk_norm`, no other norms."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.space_norm = nn.Identity() if config.qk_norm else nn.LayerNorm(config.dim)
        self.space = SpaceTimeAttention(config)
        self.time = SpaceTimeAttention(config)
        self.mlp_norm = nn.Identity() if config.qk_norm else nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, hidden, bias=config.mlp_bias)
        self.down = nn.Linear(hidden, config.dim, bias=config.mlp_bias)
        self.dropout = config.dropout

    def forward(
        self,
        x: Float[Tensor, "batch time space dim"],
        mask: Bool[Tensor, "time past"] | None = None,
        cache: TimeCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch time space dim"]:
        x = x + self._drop(self.space.over_space(self.space_norm(x)))
        x = x + self._drop(self.time.over_time(x, mask, cache, layer))
        return x + self._drop(self.down(F.gelu(self.up(self.mlp_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def empty_cache(
    config: MaskedConfig, batch: int, like: Float[Tensor, "*any space dim"]
) -> TimeCache:
    """Room for a whole context."""
    heads, time = config.num_heads, config.context_steps
    size = (config.num_layers, batch, like.shape[-2], heads, time, config.dim // heads)
    keys = torch.empty(size, dtype=like.dtype, device=like.device)
    return TimeCache(keys, torch.empty_like(keys))
