"""A GPT in 8 bits for one-token steps on a CPU: weights and key-value cache.

Decoding one token reads every weight and the cache once, so bytes are time. Every product with
one row is a sum of a table's rows weighted by that row: an embedding bag, whose kernel (fbgemm,
in PyTorch on any x86 CPU) reads rows of 8-bit numbers at the speed of memory and sums in float32.
"""

from collections.abc import Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from worldmodel.dynamics.cache import KVCache

TILE = 96  # numbers in a row at most: as many as the kernel sums up in registers
ROW_END = 8  # bytes: a row ends with its scale and its offset
TINY, HALF_UP, OFFSET = torch.tensor(1e-30), torch.tensor(128.5), torch.tensor([1.0, -128.0])
MAX_ROWS = 32  # from here on a product with weights made float32 again is faster


def why_not_int8(device: torch.device) -> str | None:
    """What stands against 8 bits on this machine; None where nothing does."""
    if device.type != "cpu":
        return f"its products are for a CPU, and the model is on {device}; use bfloat16"
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return "its products are fbgemm's, which this PyTorch is built without; use bfloat16"
    return None


def quantize(parents: Iterable[nn.Module]) -> None:
    """Put an `Int8Linear` in the place of every linear layer that is a child of one of these."""
    for parent in list(parents):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))


def rounded(
    x: Float[Tensor, "*shape dim"],
) -> tuple[UInt8[Tensor, "*shape dim"], Float[Tensor, "*shape 1"]]:
    """Vectors as (bytes - 128) * scale, with the least scale that holds them."""
    scale = torch.add(TINY, x.abs().amax(-1, keepdim=True), alpha=1 / 127)
    return torch.addcdiv(HALF_UP, x, scale).to(torch.uint8), scale


def row_ends(scale: Float[Tensor, "*shape 1"]) -> UInt8[Tensor, "*shape end"]:
    """Ends of rows that hold what `rounded` made."""
    return (scale * OFFSET).view(torch.uint8)


@lru_cache(maxsize=32)  # all layers ask alike, token after token
def bags(
    num_tables: int, table: int, runs: int, askers: int, length: int
) -> tuple[Int[Tensor, " summand"], Int[Tensor, " bag"]]:
    """Rows to sum up, and where bags begin: [table run asker] bags of `length` rows each.

    Args:
        table: rows from one table's begin to the next one's.
        runs: of `length` rows, one after the other from a table's begin.
        askers: bags that sum up the same run.
    """
    run = torch.arange(runs * length).view(1, runs, 1, length)
    rows = torch.arange(num_tables).view(-1, 1, 1, 1) * table + run.expand(-1, -1, askers, -1)
    return rows.flatten().int(), torch.arange(0, rows.numel(), length).int()


@lru_cache(maxsize=4)
def unseen(new: int, stop: int, width: int, groups: int) -> Float[Tensor, "query slot"]:
    """What is added to the scores of the newest of `stop` slots: -inf where it is later."""
    later = torch.full((new, width), -torch.inf).triu(stop - new + 1)
    return later.repeat(groups, 1)


def weighted_sums(
    table: UInt8[Tensor, "row byte"],
    chosen: tuple[Int[Tensor, " summand"], Int[Tensor, " bag"]],
    weights: Float[Tensor, "*any"],
) -> Float[Tensor, "bag number"]:
    """For every bag the sum of its rows, each times its weight."""
    rows, begins = chosen
    out: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default(
        table, rows, begins, False, 0, False, weights.reshape(-1), None, False
    )
    return out


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and a scale per output channel; inputs stay as they are.

    A row of its table holds what one input channel gives to a tile of output channels. The number
    of tiles is even, for two threads to share.

    Attributes:
        num_bytes: what a product reads.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = linear.in_features, linear.out_features
        self.num_tiles = 2 * -(-self.num_outputs // (2 * TILE))
        self.width = 8 * -(-self.num_outputs // (8 * self.num_tiles))
        weight, scale = rounded(linear.weight.detach().float())
        weight = F.pad(weight, (0, 0, 0, self.num_tiles * self.width - len(weight)))
        rows = weight.unflatten(0, (self.num_tiles, -1)).mT.flatten(0, 1)
        # Not buffers: reading one costs a microsecond, and this never moves.
        self.table = torch.cat([rows, row_ends(torch.ones(len(rows), 1))], dim=1)
        self.scale = scale[:, 0]
        self.bias = None if linear.bias is None else linear.bias.detach()
        parts = (self.table, self.scale) + (() if self.bias is None else (self.bias,))
        self.num_bytes = sum(part.nbytes for part in parts)

    def forward(self, x: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape output"]:
        count, tiles = x.numel() // self.num_inputs, self.num_tiles
        if count > MAX_ROWS:
            out = x @ self._floats()
        else:
            chosen = bags(1, 0, tiles, count, self.num_inputs)
            asked = x.reshape(count, -1).expand(tiles, -1, -1)
            out = weighted_sums(self.table, chosen, asked)
            if count > 1:
                out = out.view(tiles, count, -1).transpose(0, 1)
            out = out.reshape(*x.shape[:-1], -1)
        if out.shape[-1] > self.num_outputs:
            out = out[..., : self.num_outputs]
        return out * self.scale if self.bias is None else self.bias.addcmul(out, self.scale)

    def _floats(self) -> Float[Tensor, "input tiled"]:
        """Weights without their scales; outputs fill their last tile."""
        weight = torch.empty(self.num_inputs, self.num_tiles, self.width)
        table = self.table.view(self.num_tiles, self.num_inputs, -1)
        return weight.copy_(table[..., : self.width].transpose(0, 1)).flatten(1).sub_(128)


class Int8Cache(KVCache):
    """Keys and values in 8 bits, each vector with a scale.

    A row of values holds a slot's channels, to be weighted by a probability:
    [layer batch head slot byte]. A row of keys holds a channel in `TILE` slots, to be weighted by
    a query: [layer batch head tile channel byte].
    """

    def __init__(
        self, num_layers: int, batch: int, num_heads: int, num_slots: int, head_dim: int
    ) -> None:
        self.shape = num_layers, batch, num_heads, num_slots, head_dim
        tiles = -(-num_slots // TILE)
        lead = (num_layers, batch, num_heads)
        keys = torch.zeros(*lead, tiles, head_dim, TILE + ROW_END, dtype=torch.uint8)
        keys[..., TILE:] = row_ends(torch.ones(1))
        # Zero bytes: slots not yet written have scale 0, and read as zeros.
        values = torch.zeros(*lead, tiles * TILE, head_dim + ROW_END, dtype=torch.uint8)
        self._hold(keys, values, torch.zeros(*lead, 1, tiles * TILE))
        self.length = 0

    def _hold(self, keys: Tensor, values: Tensor, key_scales: Tensor) -> None:
        self.keys, self.values, self.key_scales = keys, values, key_scales
        # Seen as a layer's attention reads them; a view at a time would cost microseconds.
        self._key_tables = keys.flatten(1, -2).unbind()
        self._value_tables = values.flatten(1, -2).unbind()
        self._layer_scales = key_scales.flatten(1, 2).unbind()

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
    ) -> None:
        stop = start + keys.shape[2]
        whole, scales = rounded(torch.stack([keys, values]))
        self._put_keys(layer, start, whole[0])
        self.key_scales[layer, ..., start:stop] = scales[0].mT
        self.values[layer, :, :, start:stop] = torch.cat([whole[1], row_ends(scales[1])], dim=-1)

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        batch, heads, new, channels = query.shape
        kv_heads, capacity = self.shape[2], self.values.shape[3]
        stop = self.length + new
        tiles = -(-stop // TILE)
        tables, width, group = batch * kv_heads, tiles * TILE, heads // kv_heads * new
        # A tile of keys is asked by all queries that share it; the values by one after the other.
        asked = (query * scale).reshape(tables, 1, group, channels).expand(-1, tiles, -1, -1)
        chosen = bags(tables, capacity // TILE * channels, tiles, group, channels)
        scores = weighted_sums(self._key_tables[layer], chosen, asked)
        if group > 1:
            scores = scores.view(tables, tiles, group, TILE).transpose(1, 2)
        scores = scores.reshape(tables, group, width)
        scales = self._layer_scales[layer][..., :width]
        scores = unseen(new, stop, width, group // new).addcmul(scores, scales)
        chosen = bags(tables, capacity, 1, group, width)
        out = weighted_sums(self._value_tables[layer], chosen, scores.softmax(-1))
        return out.view(query.shape)

    def expand(self, num_futures: int) -> "Int8Cache":
        layers, batch, heads, slots, channels = self.shape
        other = Int8Cache(layers, 0, heads, slots, channels)
        other.shape, other.length = (layers, batch * num_futures, *self.shape[2:]), self.length
        parts = self.keys, self.values, self.key_scales
        other._hold(*(part.repeat_interleave(num_futures, dim=1) for part in parts))
        return other

    def forget(self, num_slots: int) -> None:
        kept = self.length - num_slots
        for layer in range(self.shape[0]):
            held = self.keys[layer, ..., :TILE].mT.flatten(2, 3)
            self._put_keys(layer, 0, held[:, :, num_slots : self.length])
            scales, values = self.key_scales[layer], self.values[layer]
            scales[..., :kept] = scales[..., num_slots : self.length].clone()
            values[:, :, :kept] = values[:, :, num_slots : self.length].clone()
        self.length = kept

    @property
    def num_bytes(self) -> int:
        whole = sum(part.nbytes for part in (self.keys, self.key_scales, self.values))
        return whole * self.length // self.key_scales.shape[-1]

    def _put_keys(
        self, layer: int, start: int, keys: UInt8[Tensor, "batch kv_head new channel"]
    ) -> None:
        stop = start + keys.shape[2]
        for tile in range(start // TILE, -(-stop // TILE)):
            begin = tile * TILE
            first, last = max(start, begin), min(stop, begin + TILE)
            part = keys[:, :, first - start : last - start]
            self.keys[layer, :, :, tile, :, first - begin : last - begin] = part.mT
