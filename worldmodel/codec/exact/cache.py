"""The KV cache of exact decoding: keys and values are rounded once, when they are written."""

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.codec.exact.attention import NARROW, WIDE, Way
from worldmodel.dynamics.cache import KVCache


class RoundedCache(KVCache):
    """Integers in place of keys and values, and a scale for every vector of them.

    `attend` gives the bits of `attention`: so a frame that is decoded token by token has the
    distributions of one pass over the whole clip.
    """

    way: Way = WIDE

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
        shape = num_layers, batch, num_heads, num_positions
        super().__init__(*shape, head_dim, self.way.dtype, device)
        self.scales = torch.empty(2, *shape, 1, device=device)

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
    ) -> None:
        # The operations here are exact themselves; judging each would cost more than it does.
        with torch._C._DisableTorchDispatch():
            kept = self.way.kept(keys, values)
            for part, new in zip(self.parts, kept, strict=True):
                part[layer, :, :, start : start + keys.shape[2]] = new

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        with torch._C._DisableTorchDispatch():
            new = query.shape[2]
            stop = self.length + new
            keys, values, *scales = (part[layer, :, :, :stop] for part in self.parts)
            grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
            hidden = None
            if new > 1:
                hidden = torch.ones(new, new, dtype=torch.bool).triu(1)
                hidden = hidden.repeat(grouped.shape[2] // new, 1)
            kept = keys, values, scales[0], scales[1]
            out = self.way.attend(grouped, kept, hidden, None, scale)
            return out.unflatten(2, (-1, new)).flatten(1, 2)

    def rows(self, rows: slice) -> Self:
        other = super().rows(rows)
        other.scales = self.scales[:, :, rows]
        return other

    @property
    def parts(self) -> tuple[Float[Tensor, "layer batch kv_head position _"], ...]:
        return self.keys, self.values, *self.scales


class NarrowCache(RoundedCache):
    """The same in small integers: half of the bytes."""

    way = NARROW
