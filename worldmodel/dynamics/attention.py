"""Causal self-attention with three-axis rotary positions and a static key-value cache."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.errors import BadInput


class Rotation(NamedTuple):
    """Cosine and sine of the rotary angle of every slot and pair of channels."""

    cos: Float[Tensor, "slot half"]
    sin: Float[Tensor, "slot half"]

    def slots(self, start: int, stop: int) -> "Rotation":
        return Rotation(self.cos[start:stop], self.sin[start:stop])


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's channel pairs turn with time, row and column: about a third each.

    Raises:
        BadInput: the head is odd or too narrow for three axes.
    """
    if head_dim % 2 or head_dim < 6:
        raise BadInput(
            f"head_dim={head_dim} does not fit rotary positions over time, row and column; "
            "choose dim / num_heads even and at least 6, or positions=learned"
        )
    third = head_dim // 6
    return head_dim // 2 - 2 * third, third, third


def rotation(positions: Int[Tensor, "slot 3"], head_dim: int, theta: float) -> Rotation:
    """Rotary angles over (time, row, column), each axis with its own channels (arXiv 2104.09864).

    Pair i of n on an axis turns by `position * theta ** (-i / n)`.
    """
    angles = []
    for axis, num_pairs in enumerate(axis_pairs(head_dim)):
        rates = theta ** (-torch.arange(num_pairs, dtype=torch.float64) / num_pairs)
        angles.append(positions[:, axis, None].double() * rates)
    angle = torch.cat(angles, dim=1)
    return Rotation(angle.cos().float(), angle.sin().float())


def rotate(
    x: Float[Tensor, "batch head slot channel"], turn: Rotation
) -> Float[Tensor, "batch head slot channel"]:
    """Turn every channel pair (i, i + half) by its angle, computed in float32."""
    a, b = x.float().chunk(2, dim=-1)
    turned = torch.cat([a * turn.cos - b * turn.sin, a * turn.sin + b * turn.cos], dim=-1)
    return turned.type_as(x)


class HeadNorm(nn.Module):
    """RMS norm over one head's channels, computed in float32 (arXiv 2302.05442)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Float[Tensor, "*shape channel"]) -> Float[Tensor, "*shape channel"]:
        normed = F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), eps=1e-6)
        return normed.type_as(x)


class KVCache:
    """Keys and values of every layer, allocated once: [layer batch head slot channel].

    On a CPU the keys lie in memory channel by channel, as the product with a query reads them.

    Attributes:
        length: slots filled so far; the next token is written there.
    """

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_heads: int,
        num_slots: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, batch, num_heads, num_slots, head_dim)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.keys = torch.empty_like(self.values)
        if device.type == "cpu":
            self.keys = self.keys.view(*shape[:3], head_dim, num_slots).transpose(-1, -2)
        self.length = 0

    def expand(self, num_futures: int) -> "KVCache":
        """The same past for `num_futures` rows per example, in example-major order."""
        layers, batch, heads, slots, channels = self.keys.shape
        other = KVCache(
            layers, batch * num_futures, heads, slots, channels, self.keys.dtype, self.keys.device
        )
        other.length = self.length
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            past = mine[..., : self.length, :].repeat_interleave(num_futures, dim=1)
            theirs[..., : self.length, :] = past
        return other

    @property
    def num_bytes(self) -> int:
        """Bytes that one decoded token reads: the filled part of keys and values."""
        filled = self.keys[..., : self.length, :].numel()
        return 2 * filled * self.keys.element_size()


class Attention(nn.Module):
    """Multi-head causal self-attention with one fused projection for query, key and value."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        bias: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim, bias=bias)
        self.query_norm = HeadNorm(dim // num_heads) if qk_norm else None
        self.key_norm = HeadNorm(dim // num_heads) if qk_norm else None

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
            cache.keys[layer, :, :, : x.shape[1]] = key
            cache.values[layer, :, :, : x.shape[1]] = value
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.proj(out.transpose(1, 2).flatten(2))

    def step(
        self, x: Float[Tensor, "batch 1 dim"], turn: Rotation | None, cache: KVCache, layer: int
    ) -> Float[Tensor, "batch 1 dim"]:
        """Attend from one new token, written at `cache.length`, to everything in the cache."""
        query, key, value = self._project(x, turn)
        stop = cache.length + 1
        keys, values = cache.keys[layer], cache.values[layer]
        keys[:, :, cache.length : stop] = key
        values[:, :, cache.length : stop] = value
        out = attend_one(query.to(keys.dtype), keys[:, :, :stop], values[:, :, :stop])
        return linear(self.proj, out.transpose(1, 2).flatten(2))

    def _project(
        self, x: Float[Tensor, "batch slot dim"], turn: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch head slot channel], normed and rotated."""
        split = linear(self.qkv, x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        return query, key, value


def attend_one(
    query: Float[Tensor, "batch head 1 channel"],
    keys: Float[Tensor, "batch head slot channel"],
    values: Float[Tensor, "batch head slot channel"],
) -> Float[Tensor, "batch head 1 channel"]:
    """Attention of a single query to all slots.

    On a CPU as two matrix products, because its fused kernel is made for many queries: with one
    it reads the cache at an eighth of the speed of memory.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, keys, values)
    scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ values


def linear(module: nn.Linear, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape out"]:
    """Apply a linear layer whose weights may be of lower precision than its input.

    Under autocast the cast below would be undone or doubled, so it happens only where the
    weights themselves were lowered, as for decoding.
    """
    if module.weight.dtype != torch.float32:
        x = x.to(module.weight.dtype)
    return F.linear(x, module.weight, module.bias)
