"""The static KV cache, and attention of the newest positions to it."""

from copy import copy
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class KVCache:
    """Keys and values of every layer, allocated once: [layer batch head position channel].

    On a CPU, memory is channel-major: a product with one row reads it fastest.

    Attributes:
        length: number of filled positions; the next token is written there.
    """

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_heads: int,
        num_positions: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_layers, batch, num_heads, num_positions, head_dim)
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        if device.type == "cpu":
            channel_major = (*shape[:3], head_dim, num_positions)
            self.keys, self.values = (
                part.view(channel_major).transpose(-1, -2) for part in (self.keys, self.values)
            )
        self.length = 0

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
    ) -> None:
        """Write positions of one layer from `start` on; `length` does not change."""
        stop = start + keys.shape[2]
        self.keys[layer, :, :, start:stop] = keys
        self.values[layer, :, :, start:stop] = values

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        """Causal attention of new positions, already written from `length` on, to all positions."""
        stop = self.length + query.shape[2]
        keys, values = self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]
        return attend_last(query.to(keys.dtype), keys, values, scale)

    def step(
        self,
        layer: int,
        query: Float[Tensor, "batch head new channel"],
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
        scale: float,
    ) -> Float[Tensor, "batch head new channel"]:
        """Write new positions at `length`, and attend causally to all positions up to them."""
        self.write(layer, self.length, keys, values)
        return self.attend(layer, query, scale)

    def scores(
        self,
        layer: int,
        query: Float[Tensor, "batch kv_head query channel"],
        scale: float,
        new: int,
    ) -> Float[Tensor, "batch kv_head query position"]:
        """Scores of grouped queries: of `new` positions, already written, or of later ones (0)."""
        keys = self.keys[layer, :, :, : self.length + new]
        return scores_of(query.to(keys.dtype), keys, scale, new)

    def sums(
        self, layer: int, weights: Float[Tensor, "batch kv_head query position"]
    ) -> Float[Tensor, "batch kv_head query channel"]:
        """Sums of the values of the first positions, by their weights."""
        return weights @ self.values[layer, :, :, : weights.shape[-1]]

    def empty(self, batch: int, num_positions: int) -> Self:
        """An empty cache of the same kind."""
        layers, _, heads, _, channels = self.keys.shape
        shape = (layers, batch, heads, num_positions, channels)
        return type(self)(*shape, self.keys.dtype, self.keys.device)

    def take(self, other: Self, start: int, stop: int, at: int = 0, times: int = 1) -> None:
        """Copy positions of another cache, or of this one, to `at`; each row `times` times."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            for to, layer in zip(mine, theirs, strict=True):  # all at once would double the memory
                past = layer[:, :, start:stop].clone()
                to[:, :, at : at + stop - start].unflatten(0, (-1, times)).copy_(past[:, None])

    def expand(self, num_futures: int) -> Self:
        """Repeat every row `num_futures` times, example-major."""
        other = self.empty(self.batch * num_futures, self.capacity)
        other.take(self, 0, self.length, times=num_futures)
        other.length = self.length
        return other

    def rows(self, rows: slice) -> Self:
        """Some rows of the same memory."""
        other = copy(self)
        other.keys, other.values = self.keys[:, rows], self.values[:, rows]
        return other

    def forget(self, num_positions: int) -> None:
        """Drop the oldest positions and shift the others to the front."""
        self.take(self, num_positions, self.length)
        self.length -= num_positions

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.values.shape[1]

    @property
    def capacity(self) -> int:
        """Number of positions that there is room for."""
        return self.values.shape[3]

    @property
    def parts(self) -> tuple[Float[Tensor, "layer batch kv_head position _"], ...]:
        """What is held of every position."""
        return self.keys, self.values

    @property
    def num_bytes(self) -> int:
        """Bytes of the filled keys and values; decoding a token reads them all."""
        filled = self.keys[..., : self.length, :].numel()
        return 2 * filled * self.keys.element_size()


def attend_last(
    query: Float[Tensor, "batch head new channel"],
    keys: Float[Tensor, "batch kv_head position channel"],
    values: Float[Tensor, "batch kv_head position channel"],
    scale: float,
) -> Float[Tensor, "batch head new channel"]:
    """Causal attention of the newest positions to all positions, themselves included.

    Queries that share keys are rows of one product, so every key is read once. On a CPU this
    uses two matrix products: the fused kernel is made for many queries, and with one query it
    reads the cache at an eighth of memory speed.
    """
    new, positions = query.shape[2], keys.shape[2]
    grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
    if query.device.type != "cpu":
        mask = None
        if new > 1:
            mask = F.pad(_later(grouped, new), (positions - new, 0))
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    else:
        out = scores_of(grouped, keys, scale, new).softmax(dim=-1) @ values
    return out.unflatten(2, (-1, new)).flatten(1, 2)


def scores_of(
    grouped: Float[Tensor, "batch kv_head query channel"],
    keys: Float[Tensor, "batch kv_head position channel"],
    scale: float,
    new: int,
) -> Float[Tensor, "batch kv_head query position"]:
    """Scores of grouped queries, of which a group belongs to the newest `new` positions."""
    scores = grouped @ keys.transpose(-1, -2) * scale
    if new > 1:
        scores[..., keys.shape[2] - new :] += _later(grouped, new)
    return scores


def _later(grouped: Tensor, new: int) -> Float[Tensor, "query new"]:
    """-inf for positions after that of a query."""
    later = grouped.new_full((new, new), -torch.inf).triu(1)
    return later.repeat(grouped.shape[2] // new, 1)
