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

    def expand(self, num_futures: int) -> "KVCache":
        """Repeat every row `num_futures` times, example-major."""
        layers, batch, heads, positions, channels = self.keys.shape
        shape = (layers, batch * num_futures, heads, positions, channels)
        other = type(self)(*shape, self.keys.dtype, self.keys.device)
        other.length = self.length
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            past = mine[..., : self.length, :].repeat_interleave(num_futures, dim=1)
            theirs[..., : self.length, :] = past
        return other

    def rows(self, rows: slice) -> Self:
        """Some rows of the same memory."""
        other = copy(self)
        other.keys, other.values = self.keys[:, rows], self.values[:, rows]
        return other

    def forget(self, num_positions: int) -> None:
        """Drop the oldest positions and shift the others to the front."""
        kept = self.length - num_positions
        for part in self.parts:
            for layer in part:  # per layer: cloning the whole cache would double the memory
                layer[:, :, :kept] = layer[:, :, num_positions : self.length].clone()
        self.length = kept

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
    later = None
    if new > 1:
        later = query.new_full((new, new), -torch.inf).triu(1)
        later = later.repeat(grouped.shape[2] // new, 1)
    if query.device.type != "cpu":
        mask = None if later is None else F.pad(later, (positions - new, 0))
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    else:
        scores = grouped @ keys.transpose(-1, -2) * scale
        if later is not None:
            scores[..., positions - new :] += later
        out = scores.softmax(dim=-1) @ values
    return out.unflatten(2, (-1, new)).flatten(1, 2)
