"""The static key-value cache, and attention of the newest slots to what it holds."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class KVCache:
    """Keys and values of every layer, allocated once: [layer batch head slot channel].

    On a CPU they lie in memory channel by channel, as a product with one row reads them fastest.

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
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        if device.type == "cpu":
            turned = (*shape[:3], head_dim, num_slots)
            self.keys, self.values = (
                part.view(turned).transpose(-1, -2) for part in (self.keys, self.values)
            )
        self.length = 0

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
    ) -> None:
        """Set the slots from `start` on of one layer; `length` stays as it is."""
        stop = start + keys.shape[2]
        self.keys[layer, :, :, start:stop] = keys
        self.values[layer, :, :, start:stop] = values

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        """Causal attention of new slots, already written behind `length`, to all so far."""
        stop = self.length + query.shape[2]
        keys, values = self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]
        return attend_last(query.to(keys.dtype), keys, values, scale)

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

    def forget(self, num_slots: int) -> None:
        """Drop the oldest slots; the others keep what they hold and move up."""
        kept = self.length - num_slots
        for part in (self.keys, self.values):
            for layer in part:  # one by one: a copy of the whole cache would double the memory
                layer[:, :, :kept] = layer[:, :, num_slots : self.length].clone()
        self.length = kept

    @property
    def num_bytes(self) -> int:
        """Bytes that one decoded token reads: the filled part of keys and values."""
        filled = self.keys[..., : self.length, :].numel()
        return 2 * filled * self.keys.element_size()


def attend_last(
    query: Float[Tensor, "batch head new channel"],
    keys: Float[Tensor, "batch kv_head slot channel"],
    values: Float[Tensor, "batch kv_head slot channel"],
    scale: float,
) -> Float[Tensor, "batch head new channel"]:
    """Causal attention of the newest slots to all slots, themselves included.

    The queries that share keys are attended as the rows of one product, so that every key is
    read once. On a CPU as two matrix products, because its fused kernel is made for many
    queries: with one it reads the cache at an eighth of the speed of memory.
    """
    new, slots = query.shape[2], keys.shape[2]
    grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
    later = None
    if new > 1:
        later = query.new_full((new, new), -torch.inf).triu(1)
        later = later.repeat(grouped.shape[2] // new, 1)
    if query.device.type != "cpu":
        mask = None if later is None else F.pad(later, (slots - new, 0))
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    else:
        scores = grouped @ keys.transpose(-1, -2) * scale
        if later is not None:
            scores[..., slots - new :] += later
        out = scores.softmax(dim=-1) @ values
    return out.unflatten(2, (-1, new)).flatten(1, 2)
