"""The KV cache of exact decoding: keys and values are rounded once, when they are written."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.codec.exact import numbers
from worldmodel.dynamics.cache import KVCache


class RoundedCache(KVCache):
    """Integers in float64 in place of keys and values, and a scale for every vector of them.

    `attend` gives the bits of `numbers.attention`: so a frame that is decoded token by token has
    the distributions of one pass over the whole clip.
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
        shape = num_layers, batch, num_heads, num_positions
        super().__init__(*shape, head_dim, torch.float64, device)
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
            (keys, key_scales), (values, value_scales) = map(numbers.rounded, (keys, values))
            super().write(layer, start, keys, values)
            stop = start + keys.shape[2]
            self.scales[0, layer, :, :, start:stop] = key_scales
            self.scales[1, layer, :, :, start:stop] = value_scales

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        with torch._C._DisableTorchDispatch():
            new = query.shape[2]
            stop = self.length + new
            parts = self.keys, self.scales[0], self.values, self.scales[1]
            keys, key_scales, values, value_scales = (p[layer, :, :, :stop] for p in parts)
            grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
            hidden = None
            if new > 1:
                hidden = torch.ones(new, stop, dtype=torch.bool).triu(stop - new + 1)
                hidden = hidden.repeat(grouped.shape[2] // new, 1)
            held = (keys, key_scales), (values, value_scales)
            out = numbers.attend(grouped, *held, hidden, None, scale)
            return out.unflatten(2, (-1, new)).flatten(1, 2)

    @property
    def parts(self) -> tuple[Float[Tensor, "layer batch kv_head position _"], ...]:
        return self.keys, self.values, *self.scales
