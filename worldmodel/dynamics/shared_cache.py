"""A cache of several futures of one prompt, which holds the prompt once."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.dynamics.cache import KVCache


class SharedCache(KVCache):
    """Positions of the prompt stand once per example, those after them once per future.

    One product serves the queries of all futures of an example, so what they share is also read
    once (Hydragen, arXiv 2402.05099). Scores of both parts stand side by side in one softmax.

    Args:
        prompt: a filled cache, with room for all positions; it becomes part of this one.
        unit: a multiple of so many positions is shared; the rest of the prompt is copied.

    Attributes:
        prompt: the first positions [example ...].
        own: the positions after them [future ...], example-major.
    """

    def __init__(self, prompt: KVCache, num_futures: int, unit: int = 1) -> None:
        self.prompt, self.num_futures, self.unit = prompt, num_futures, unit
        self.room, self.futures = prompt.capacity, prompt.batch * num_futures
        self.own = prompt.empty(self.futures, 0)
        self._move(0)

    @property
    def length(self) -> int:
        return self.prompt.length + self.own.length

    @length.setter
    def length(self, length: int) -> None:
        assert length >= self.prompt.length
        self.own.length = length - self.prompt.length

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "future kv_head new channel"],
        values: Float[Tensor, "future kv_head new channel"],
    ) -> None:
        self.own.write(layer, start - self.prompt.length, keys, values)

    def attend(
        self, layer: int, query: Float[Tensor, "future head new channel"], scale: float
    ) -> Float[Tensor, "future head new channel"]:
        split, new, kv_heads = self.prompt.length, query.shape[2], self.own.keys.shape[2]
        if not split:
            return self.own.attend(layer, query, scale)
        query = query.unflatten(1, (kv_heads, -1)).flatten(2, 3)
        past = self.prompt.scores(layer, self._together(query), scale, 0)
        own = self.own.scores(layer, query, scale, new)
        weights = torch.cat([past, self._together(own)], dim=-1).softmax(dim=-1)
        out = self._apart(self.prompt.sums(layer, weights[..., :split]))
        out = out + self.own.sums(layer, self._apart(weights[..., split:]))
        return out.unflatten(2, (-1, new)).flatten(1, 2)

    def forget(self, num_positions: int) -> None:
        if self.prompt.length:
            self._move(num_positions)
        else:
            self.own.forget(num_positions)

    @property
    def num_bytes(self) -> int:
        return self.prompt.num_bytes + self.own.num_bytes

    def _move(self, gone: int) -> None:
        """Drop the oldest positions; own memory grows by what is no longer shared."""
        prompt, own = self.prompt, self.own
        past = max(0, prompt.length - gone)
        copied = past % self.unit
        self.own = own.empty(self.futures, self.room - past + copied)
        self.own.take(prompt, prompt.length - copied, prompt.length, times=self.num_futures)
        self.own.take(own, max(0, gone - prompt.length), own.length, at=copied)
        self.own.length = copied + own.length - max(0, gone - prompt.length)
        if past == copied:
            self.prompt = prompt.empty(prompt.batch, 0)
        elif gone:
            prompt.forget(gone)
        self.prompt.length = past - copied

    def _together(self, x: Float[Tensor, "future kv_head query _"]) -> Float[Tensor, "..."]:
        """[example kv_head future*query _]: the queries that read the same prompt."""
        return x.unflatten(0, (-1, self.num_futures)).transpose(1, 2).flatten(2, 3)

    def _apart(self, x: Float[Tensor, "example kv_head futures _"]) -> Float[Tensor, "..."]:
        """[future kv_head query _] again."""
        return x.unflatten(2, (self.num_futures, -1)).transpose(1, 2).flatten(0, 1)
