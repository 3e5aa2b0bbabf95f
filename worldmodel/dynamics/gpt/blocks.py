"""The transformer block of every GPT here, from GPT-2's to Llama's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.dynamics.attention import (
    Attention,
    AttentionShape,
    CrossAttention,
    Words,
    linear,
)
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.positions import Rotation
from worldmodel.dynamics.text import Text


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.dim, config.norm_eps, config.norm_affine)
    return nn.LayerNorm(config.dim, config.norm_eps, config.norm_affine, bias=config.bias)


class Block(nn.Module):
    """Pre-norm transformer block.

    Args:
        layer: which one it is; every `cross_every`-th, the first included, also reads captions.
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

    def forward(
        self,
        x: Float[Tensor, "batch slot dim"],
        turn: Rotation | None,
        cache: KVCache | None = None,
        layer: int = 0,
        text: Text | Words | None = None,
    ) -> Float[Tensor, "batch slot dim"]:
        x = self._placed(x, turn)
        x = x + self._drop(self.attention(self.attention_norm(x), turn, cache, layer))
        x = self._with_text(x, text)
        return x + self._drop(self._mlp(x))

    def step(
        self,
        x: Float[Tensor, "batch new dim"],
        turn: Rotation | None,
        cache: KVCache,
        layer: int,
        text: Text | Words | None = None,
    ) -> Float[Tensor, "batch new dim"]:
        """New slots against the cache and those before them."""
        x = self._placed(x, turn)
        x = x + self.attention.step(self.attention_norm(x), turn, cache, layer)
        x = self._with_text(x, text)
        return x + self._mlp(x)

    @staticmethod
    def _placed(x: Tensor, turn: Rotation | None) -> Tensor:
        return x if turn is None or turn.added is None else x + turn.added

    def _with_text(self, x: Tensor, text: Text | Words | None) -> Tensor:
        if not self.reads_text:
            return x
        assert text is not None  # the GPT checks what it is given
        words = self.cross_attention.read(text) if isinstance(text, Text) else text
        return x + self._drop(self.cross_attention(self.cross_norm(x), words))

    def _mlp(self, x: Tensor) -> Tensor:
        x = self.mlp_norm(x)
        if self.mlp == "swiglu":
            return linear(self.down, F.silu(linear(self.gate, x)) * linear(self.up, x))
        return linear(self.down, F.gelu(linear(self.up, x), approximate=self.gelu))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
