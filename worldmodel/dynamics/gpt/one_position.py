"""One position through all blocks of a GPT, with fixed shapes and addresses: a CUDA graph on a GPU.

A GPU finishes the kernels of one position faster than the host launches them one by one. A graph
launches them at once; it needs every tensor at the same place each time. So the position is a
number on the device, and attention reads the whole cache and masks what is not written yet.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from training.errors import first_line
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.blocks import Block
from worldmodel.dynamics.gpt.model import GPT

ROW = 16  # positions


class Unrecordable(RuntimeError):
    """The kernels of this position cannot be recorded; says why."""


class LayerCache(KVCache):
    """One layer of a cache, written and read at a position on the device."""

    def __init__(
        self,
        keys: Float[Tensor, "batch kv_head position channel"],
        values: Float[Tensor, "batch kv_head position channel"],
        position: Int[Tensor, " 1"],
        mask: Float[Tensor, "1 position"],
    ) -> None:
        self.keys, self.values, self.position, self.mask = keys, values, position, mask

    def step(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        self.keys.index_copy_(2, self.position, keys.to(self.keys.dtype))
        self.values.index_copy_(2, self.position, values.to(self.values.dtype))
        grouped = query.unflatten(1, (self.keys.shape[1], -1)).flatten(2, 3).to(self.keys.dtype)
        attend = _weighted if torch.compiler.is_compiling() else F.scaled_dot_product_attention
        out = attend(grouped, self.keys, self.values, attn_mask=self.mask, scale=scale)
        return out.unflatten(2, (-1, 1)).flatten(1, 2)


class OnePosition:
    """Runs one new position of every row; what it returns is overwritten by the next call.

    Args:
        compiled: compile the block; the first call then takes half a minute or more.

    Attributes:
        cache: read and written by all calls; unwritten positions are set to zero. Fused attention
            takes its mask as it is where the number of positions is a multiple of `ROW`.
    """

    def __init__(self, model: GPT, cache: KVCache, compiled: bool = False) -> None:
        self.model, self.cache = model, cache
        self.blocks = cast(list[Block], list(model.blocks))
        for part in cache.parts:
            part[..., cache.length :, :] = 0  # a masked position still multiplies: 0 times NaN
        device = cache.keys.device
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.places = torch.arange(cache.keys.shape[-2], device=device)[None]
        self.step = torch.compile(Block.step, dynamic=False) if compiled else Block.step
        self.graph: torch.cuda.CUDAGraph | None = None
        self.held: list[Any] = []  # copies of the inputs, at fixed places
        self.given: list[Any] = []  # the inputs that they are copies of
        self.out: tuple[Tensor, Tensor]

    def __call__(
        self, x: Float[Tensor, "row 1 dim"], *layers: Any
    ) -> tuple[Float[Tensor, "row 1 dim"], Float[Tensor, "row 1 vocab"]]:
        """The last hidden states and the logits after writing at `cache.length`.

        Args:
            layers: RoPE of the position, then texts and modulations, each one per block.
        Raises:
            Unrecordable: some operation of the network cannot be part of a graph.
        """
        inputs, spec = tree_flatten((x, *layers))
        if not self._hold(inputs):
            self.spec, self.graph = spec, None
        self.position.fill_(self.cache.length)
        if x.device.type != "cuda":
            self.out = self._run()
        elif self.graph is None:
            self._capture()
        if self.graph is not None:
            self.graph.replay()
        return self.out

    def _hold(self, inputs: list[Any]) -> bool:
        """Copy the inputs to their places; False if these had to be made anew."""
        fits = len(inputs) == len(self.held) and all(map(_alike, inputs, self.held))
        if not fits:
            self.held = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
        else:
            for new, old, held in zip(inputs, self.given, self.held, strict=True):
                if new is not old and isinstance(new, Tensor):
                    held.copy_(new)
        self.given = inputs
        return fits

    def _run(self) -> tuple[Tensor, Tensor]:
        x, rope, texts, modulations = tree_unflatten(self.held, self.spec)
        mask = torch.zeros_like(self.places, dtype=self.cache.keys.dtype)
        mask = mask.masked_fill(self.places > self.position, -torch.inf)
        for layer, block in enumerate(self.blocks):
            parts = self.cache.keys[layer], self.cache.values[layer]
            cache = LayerCache(*parts, self.position, mask)
            x = self.step(block, x, rope, cache, 0, texts[layer], modulations[layer])
        return x, self.model.logits(x).float()

    def _capture(self) -> None:
        """Record the kernels; first they run aside, so that libraries and compilers settle.

        Other threads, such as a loader's, go on as they were: only this one's calls are judged.
        """
        device = self.position.device  # not always the current one
        aside, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(aside):
            for _ in range(2):
                self._run()
        torch.cuda.current_stream(device).wait_stream(aside)
        try:
            with (
                torch.cuda.device(device),
                torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"),
            ):
                self.out = self._run()
        except RuntimeError as error:
            raise Unrecordable(first_line(error)) from error
        self.graph = graph


def _alike(new: Any, held: Any) -> bool:
    if not isinstance(new, Tensor):
        return bool(new == held)
    return isinstance(held, Tensor) and (new.shape, new.dtype) == (held.shape, held.dtype)


def _weighted(
    query: Float[Tensor, "batch kv_head query channel"],
    keys: Float[Tensor, "batch kv_head position channel"],
    values: Float[Tensor, "batch kv_head position channel"],
    attn_mask: Float[Tensor, "1 position"],
    scale: float,
) -> Float[Tensor, "batch kv_head query channel"]:
    """Attention as sums, which a compiler fuses: one pass over keys, one over values, in float32.

    The fused kernels share a few queries out to few processors, and read at a fraction of memory
    speed.
    """
    scores = (query.float()[..., None, :] * keys.float()[:, :, None]).sum(-1) * scale
    weights = (scores + attn_mask).softmax(-1)
    out = (weights[..., None] * values.float()[:, :, None]).sum(-2)
    return out.to(query.dtype)
