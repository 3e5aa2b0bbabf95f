"""Causal self-attention with a KV cache, and cross-attention to the tokens of captions."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.positions import Rope, apply_rope
from worldmodel.dynamics.text import Text

# Whether a compiler sees the product of one row as a sum, and fuses it with its neighbours.
SUMS_OF_ONE_ROW = False


class TextKV(NamedTuple):
    """Keys and values of a `Text` in one layer."""

    keys: Float[Tensor, "caption head token channel"]
    values: Float[Tensor, "caption head token channel"]
    mask: Bool[Tensor, "caption 1 1 token"]
    step_length: int
    lead: int = 0

    def at(self, index: Int[Tensor, " caption"], lead: int = 0) -> "TextKV":
        """The keys and values of some captions; the first one also serves `lead` positions."""
        keys, values, mask = self.keys[index], self.values[index], self.mask[index]
        return TextKV(keys, values, mask, self.step_length, lead)


class HeadNorm(nn.Module):
    """RMS norm over the channels of one head, in float32 (arXiv 2302.05442)."""

    def __init__(self, head_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(head_dim)), eps

    def forward(self, x: Float[Tensor, "*shape channel"]) -> Float[Tensor, "*shape channel"]:
        normed = F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), eps=self.eps)
        return normed.type_as(x)


class AttentionShape(NamedTuple):
    """Sizes of an attention layer.

    Attributes:
        num_kv_heads: heads of keys and values. num_heads / num_kv_heads query heads share one
            (arXiv 2305.13245).
        qk_norm_eps: epsilon of the norm of queries and keys; None for no norm.
        scale: factor of query times key.
    """

    dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    bias: bool
    qk_norm_eps: float | None
    scale: float

    @property
    def kv_width(self) -> int:
        return self.num_kv_heads * self.head_dim

    def head_norm(self) -> HeadNorm | None:
        return None if self.qk_norm_eps is None else HeadNorm(self.head_dim, self.qk_norm_eps)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Scaled dot-product attention; for many queries."""
        if self.num_kv_heads != self.num_heads:
            options["enable_gqa"] = True
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale, **options)


class Attention(nn.Module):
    """Multi-head causal self-attention with one fused projection for query, key and value."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.num_heads * shape.head_dim
        self.qkv = nn.Linear(shape.dim, width + 2 * shape.kv_width, bias=shape.bias)
        self.proj = nn.Linear(width, shape.dim, bias=shape.bias)
        self.query_norm, self.key_norm = shape.head_norm(), shape.head_norm()

    def forward(
        self,
        x: Float[Tensor, "batch position dim"],
        rope: Rope | None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch position dim"]:
        """Attend over the whole sequence; with a cache, also write keys and values to it."""
        query, key, value = self._project(x, rope)
        if cache is not None:
            cache.write(layer, 0, key, value)
        out = self.shape.attend(query, key, value, is_causal=True)
        return self.proj(out.transpose(1, 2).flatten(2))

    def step(
        self, x: Float[Tensor, "batch new dim"], rope: Rope | None, cache: KVCache, layer: int
    ) -> Float[Tensor, "batch new dim"]:
        """Write new positions at `cache.length`; attend causally to all positions in the cache."""
        query, key, value = self._project(x, rope)
        out = cache.step(layer, query, key, value, self.shape.scale)
        return linear(self.proj, out.transpose(1, 2).flatten(2))

    def _project(
        self, x: Float[Tensor, "batch position dim"], rope: Rope | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch head position channel], with norm and RoPE."""
        heads, kv_heads = self.shape.num_heads, self.shape.num_kv_heads
        split = linear(self.qkv, x).unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2)
        query, key, value = split.split((heads, kv_heads, kv_heads), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rope is not None:
            query, key = apply_rope(query, rope), apply_rope(key, rope)
        return query, key, value


class CrossAttention(nn.Module):
    """Attention from every position to the tokens of its caption; it has no position encoding."""

    def __init__(self, shape: AttentionShape, context_dim: int) -> None:
        super().__init__()
        self.shape = shape
        width = shape.num_heads * shape.head_dim
        self.query = nn.Linear(shape.dim, width, bias=shape.bias)
        self.context_kv = nn.Linear(context_dim, 2 * shape.kv_width, bias=shape.bias)
        self.proj = nn.Linear(width, shape.dim, bias=shape.bias)
        self.query_norm, self.key_norm = shape.head_norm(), shape.head_norm()

    def text_kv(self, text: Text) -> TextKV:
        """Keys and values of the captions; all positions of a time step share them."""
        split = linear(self.context_kv, text.states).unflatten(-1, (2, -1, self.shape.head_dim))
        keys, values = split.permute(2, 0, 3, 1, 4)
        keys = keys if self.key_norm is None else self.key_norm(keys)
        return TextKV(keys, values, text.mask[:, None, None], text.step_length, text.lead)

    def forward(
        self, x: Float[Tensor, "batch position dim"], text: TextKV
    ) -> Float[Tensor, "batch position dim"]:
        batch, positions = x.shape[:2]
        steps = len(text.keys) // batch
        query = linear(self.query, x)
        before = text.step_length - text.lead if steps > 1 and text.lead else 0
        if steps > 1:  # the lead and the last step may be incomplete: pad them
            query = F.pad(query, (0, 0, before, steps * text.step_length - positions - before))
        query = query.view(batch * steps, -1, self.shape.num_heads, self.shape.head_dim)
        query = query.transpose(1, 2)
        query = query if self.query_norm is None else self.query_norm(query)
        out = self.shape.attend(query, text.keys, text.values, attn_mask=text.mask)
        out = out.transpose(1, 2).reshape(batch, -1, query.shape[1] * query.shape[3])
        return linear(self.proj, out[:, before : before + positions])


def linear(module: nn.Module, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape out"]:
    """Apply a linear layer; its weights may have lower precision than its input.

    The input is cast only where the weights were lowered, as for decoding. Under autocast a
    cast would be redundant.
    """
    if isinstance(module, nn.Linear) and module.weight.dtype != torch.float32:
        x = x.to(module.weight.dtype)
        if SUMS_OF_ONE_ROW and torch.compiler.is_compiling() and x.numel() == x.shape[-1]:
            total = (x.float()[..., None, :] * module.weight.float()).sum(-1)
            return (total if module.bias is None else total + module.bias).to(x.dtype)
    out: Tensor = module(x)
    return out
