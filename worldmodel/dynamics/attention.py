"""Attention: causal over the slots, with a cache where decoding, and to the words of captions."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.positions import Rotation, rotate
from worldmodel.dynamics.text import Text


class Words(NamedTuple):
    """A `Text` as one layer reads it: keys and values, computed once."""

    keys: Float[Tensor, "said head word channel"]
    values: Float[Tensor, "said head word channel"]
    mask: Bool[Tensor, "said 1 1 word"]
    step_length: int
    lead: int = 0

    def at(self, numbers: Int[Tensor, " said"], lead: int = 0) -> "Words":
        """Of these captions, the first of them that of `lead` slots."""
        keys, values, mask = self.keys[numbers], self.values[numbers], self.mask[numbers]
        return Words(keys, values, mask, self.step_length, lead)


class HeadNorm(nn.Module):
    """RMS norm over one head's channels, computed in float32 (arXiv 2302.05442)."""

    def __init__(self, head_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(head_dim)), eps

    def forward(self, x: Float[Tensor, "*shape channel"]) -> Float[Tensor, "*shape channel"]:
        normed = F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), eps=self.eps)
        return normed.type_as(x)


class AttentionShape(NamedTuple):
    """Widths of an attention.

    Attributes:
        num_kv_heads: heads of keys and values, each read by num_heads / num_kv_heads queries
            (arXiv 2305.13245).
        qk_norm_eps: of the norm of queries and keys; None for no norm.
        scale: of query times key.
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
        """Scaled dot-product attention of many queries."""
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
        x: Float[Tensor, "batch slot dim"],
        turn: Rotation | None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch slot dim"]:
        """Attend over the whole sequence; with a cache, also write its first slots there."""
        query, key, value = self._project(x, turn)
        if cache is not None:
            cache.write(layer, 0, key, value)
        out = self.shape.attend(query, key, value, is_causal=True)
        return self.proj(out.transpose(1, 2).flatten(2))

    def step(
        self, x: Float[Tensor, "batch new dim"], turn: Rotation | None, cache: KVCache, layer: int
    ) -> Float[Tensor, "batch new dim"]:
        """Attend from new slots, written at `cache.length`, to the cache and those before."""
        query, key, value = self._project(x, turn)
        cache.write(layer, cache.length, key, value)
        out = cache.attend(layer, query, self.shape.scale)
        return linear(self.proj, out.transpose(1, 2).flatten(2))

    def _project(
        self, x: Float[Tensor, "batch slot dim"], turn: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch head slot channel], normed and rotated."""
        heads, kv_heads = self.shape.num_heads, self.shape.num_kv_heads
        split = linear(self.qkv, x).unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2)
        query, key, value = split.split((heads, kv_heads, kv_heads), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        return query, key, value


class CrossAttention(nn.Module):
    """Attention from every slot to the words of its time step's caption, without positions."""

    def __init__(self, shape: AttentionShape, context_dim: int) -> None:
        super().__init__()
        self.shape = shape
        width = shape.num_heads * shape.head_dim
        self.query = nn.Linear(shape.dim, width, bias=shape.bias)
        self.context_kv = nn.Linear(context_dim, 2 * shape.kv_width, bias=shape.bias)
        self.proj = nn.Linear(width, shape.dim, bias=shape.bias)
        self.query_norm, self.key_norm = shape.head_norm(), shape.head_norm()

    def read(self, text: Text) -> Words:
        """Keys and values, the same for every slot of a step."""
        split = linear(self.context_kv, text.states).unflatten(-1, (2, -1, self.shape.head_dim))
        keys, values = split.permute(2, 0, 3, 1, 4)
        keys = keys if self.key_norm is None else self.key_norm(keys)
        return Words(keys, values, text.mask[:, None, None], text.step_length, text.lead)

    def forward(
        self, x: Float[Tensor, "batch slot dim"], words: Words
    ) -> Float[Tensor, "batch slot dim"]:
        batch, slots = x.shape[:2]
        steps = len(words.keys) // batch
        query = linear(self.query, x)
        before = words.step_length - words.lead if steps > 1 and words.lead else 0
        if steps > 1:  # the last step may lack its last slots, and the lead has but a few
            query = F.pad(query, (0, 0, before, steps * words.step_length - slots - before))
        query = query.view(batch * steps, -1, self.shape.num_heads, self.shape.head_dim)
        query = query.transpose(1, 2)
        query = query if self.query_norm is None else self.query_norm(query)
        out = self.shape.attend(query, words.keys, words.values, attn_mask=words.mask)
        out = out.transpose(1, 2).reshape(batch, -1, query.shape[1] * query.shape[3])
        return linear(self.proj, out[:, before : before + slots])


def linear(module: nn.Module, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape out"]:
    """Apply a linear layer whose weights may be of lower precision than its input.

    Under autocast the cast below would be undone or doubled, so it happens only where the
    weights themselves were lowered, as for decoding.
    """
    if isinstance(module, nn.Linear) and module.weight.dtype != torch.float32:
        x = x.to(module.weight.dtype)
    out: Tensor = module(x)
    return out
