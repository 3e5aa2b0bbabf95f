"""Transformer blocks along one axis: the cells of a frame, or the time steps of a cell."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.actions.layers import UNMOVED, Modulation, entered, in_block, read, written
from worldmodel.dynamics.attention import HeadNorm
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig


class AxisAttention(nn.Module):
    """Multi-head attention along one axis, full or causal, with QK norm."""

    def __init__(self, dim: int, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.query_norm, self.key_norm = HeadNorm(dim // num_heads), HeadNorm(dim // num_heads)

    def forward(
        self, x: Float[Tensor, "batch position dim"], cache: KVCache | None = None, layer: int = 0
    ) -> Float[Tensor, "batch position dim"]:
        """Attend over the whole axis; with a cache, also write keys and values to it."""
        query, key, value = self._project(x)
        if cache is not None:
            cache.write(layer, 0, key, value)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.proj(out.transpose(1, 2).flatten(2))

    def step(
        self, x: Float[Tensor, "batch 1 dim"], cache: KVCache, layer: int
    ) -> Float[Tensor, "batch 1 dim"]:
        """Write one new position at `cache.length`; attend to the whole cache."""
        query, key, value = self._project(x)
        cache.write(layer, cache.length, key, value)
        out = cache.attend(layer, query, query.shape[-1] ** -0.5)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _project(self, x: Float[Tensor, "batch position dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch head position channel]."""
        split = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return self.query_norm(query), self.key_norm(key), value


class AxisBlock(nn.Module):
    """Pre-norm transformer block over one axis; with actions in it, if they are read so.

    Rows come as [group batch]: the batch is that of the actions.
    """

    def __init__(self, config: WholeFrameConfig, causal: bool) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.mlp_ratio * config.dim)
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.attention = AxisAttention(dim, config.num_heads, causal)
        self.mlp_norm = nn.LayerNorm(dim, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.dropout = config.dropout
        self.acting = in_block(config.layout, dim)

    def forward(
        self,
        x: Float[Tensor, "row position dim"],
        cache: KVCache | None = None,
        layer: int = 0,
        acting: Float[Tensor, "batch step dim"] | None = None,
    ) -> Float[Tensor, "row position dim"]:
        """Run all positions; `acting` are the embedded actions of each or of all."""
        by = self.modulation(acting)
        x = entered(x, by)
        normed = read(self.attention_norm(x), by.attention)
        x = x + self._drop(written(self.attention(normed, cache, layer), by.attention))
        return x + self._drop(self._mlp(x, by))

    def step(
        self, x: Float[Tensor, "row 1 dim"], cache: KVCache, layer: int, by: Modulation
    ) -> Float[Tensor, "row 1 dim"]:
        """Run one new position against the cache; causal blocks only."""
        x = entered(x, by)
        normed = read(self.attention_norm(x), by.attention)
        x = x + written(self.attention.step(normed, cache, layer), by.attention)
        return x + self._mlp(x, by)

    def modulation(self, acting: Float[Tensor, "batch step dim"] | None) -> Modulation:
        """What these actions do to this block."""
        return UNMOVED if self.acting is None or acting is None else self.acting(acting)

    def _mlp(self, x: Tensor, by: Modulation) -> Tensor:
        normed = read(self.mlp_norm(x), by.mlp)
        return written(self.down(F.gelu(self.up(normed), approximate="tanh")), by.mlp)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
