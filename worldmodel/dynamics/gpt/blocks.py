"""The transformer block of a GPT, from GPT-2 to Llama by its config."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.actions.layers import (
    UNMOVED,
    Modulation,
    entered,
    in_block,
    read,
    written,
)
from worldmodel.dynamics.attention import (
    Attention,
    AttentionShape,
    CrossAttention,
    TextKV,
    linear,
)
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.positions import Rope
from worldmodel.dynamics.text import Text


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.dim, config.norm_eps, config.norm_affine)
    return nn.LayerNorm(config.dim, config.norm_eps, config.norm_affine, bias=config.bias)


class Block(nn.Module):
    """Pre-norm transformer block.

    Args:
        layer: its index. Every `cross_every`-th block, from 0 on, also attends to captions.
    """

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__()
        shape = AttentionShape(
            config.dim,
            config.num_heads,
            config.kv_heads,
            config.head_dim,
            config.bias,
            config.qk_norm_eps if config.qk_norm else None,
            config.attention_scale or config.head_dim**-0.5,
        )
        self.attention_norm = make_norm(config)
        self.attention = Attention(shape)
        self.reads_text = config.context_dim > 0 and layer % config.cross_every == 0
        if self.reads_text:
            self.cross_norm = make_norm(config)
            self.cross_attention = CrossAttention(shape, config.context_dim)
        self.mlp_norm = make_norm(config)
        self.up = nn.Linear(config.dim, config.hidden, bias=config.bias)
        if config.mlp == "swiglu":
            self.gate = nn.Linear(config.dim, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.dim, bias=config.bias)
        self.mlp, self.gelu, self.dropout = config.mlp, config.gelu, config.dropout
        self.acting = in_block(config.layout, config.dim)

    def forward(
        self,
        x: Float[Tensor, "batch position dim"],
        rope: Rope | None,
        cache: KVCache | None = None,
        layer: int = 0,
        text: Text | TextKV | None = None,
        acting: Float[Tensor, "batch step dim"] | None = None,
    ) -> Float[Tensor, "batch position dim"]:
        """Run a sequence; `acting` are the embedded actions of its time steps."""
        by = self.modulation(acting)
        x = entered(self._with_position(x, rope), by)
        normed = read(self.attention_norm(x), by.attention)
        x = x + self._drop(written(self.attention(normed, rope, cache, layer), by.attention))
        x = self._with_text(x, text)
        return x + self._drop(self._mlp(x, by))

    def step(
        self,
        x: Float[Tensor, "batch new dim"],
        rope: Rope | None,
        cache: KVCache,
        layer: int,
        text: Text | TextKV | None = None,
        by: Modulation = UNMOVED,
    ) -> Float[Tensor, "batch new dim"]:
        """Run new positions of one time step against the cache."""
        x = entered(self._with_position(x, rope), by)
        normed = read(self.attention_norm(x), by.attention)
        x = x + written(self.attention.step(normed, rope, cache, layer), by.attention)
        x = self._with_text(x, text)
        return x + self._mlp(x, by)

    def modulation(self, acting: Float[Tensor, "batch step dim"] | None) -> Modulation:
        """What these actions do to this block."""
        return UNMOVED if self.acting is None or acting is None else self.acting(acting)

    @staticmethod
    def _with_position(x: Tensor, rope: Rope | None) -> Tensor:
        return x if rope is None or rope.added is None else x + rope.added

    def _with_text(self, x: Tensor, text: Text | TextKV | None) -> Tensor:
        if not self.reads_text:
            return x
        assert text is not None  # GPT.run gives one to every block that reads text
        text_kv = self.cross_attention.text_kv(text) if isinstance(text, Text) else text
        return x + self._drop(self.cross_attention(self.cross_norm(x), text_kv))

    def _mlp(self, x: Tensor, by: Modulation = UNMOVED) -> Tensor:
        x = read(self.mlp_norm(x), by.mlp)
        if self.mlp == "swiglu":
            hidden = F.silu(linear(self.gate, x)) * linear(self.up, x)
        else:
            hidden = F.gelu(linear(self.up, x), approximate=self.gelu)
        return written(linear(self.down, hidden), by.mlp)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
