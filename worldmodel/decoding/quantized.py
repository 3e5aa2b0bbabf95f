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

TILE = 96  # numbers in a row: as many as the kernel sums up in registers
ROW_END = 8  # bytes: a row ends with its scale and its offset
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
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return (x / scale).round_().add_(128).to(torch.uint8), scale


def row_ends(scale: Float[Tensor, "*shape 1"]) -> UInt8[Tensor, "*shape end"]:
    """Ends of rows that hold what `rounded` made."""
    return torch.cat([scale, -128 * scale], dim=-1).view(torch.uint8)


@lru_cache(maxsize=32)  # all layers ask alike, token after token
def bags(
    num_tables: int, table: int, runs: int, askers: int, length: int
) -> tuple[Int[Tensor, " row"], Int[Tensor, " bag"]]:
    """Rows to sum up, and where bags begin: [table run asker] bags of `length` rows each.

    Args:
        table: rows from one table's begin to the next one's.
        runs: of `length` rows, one after the other from a table's begin.
        askers: bags that sum up the same run.
    """
    run = torch.arange(runs * length).view(1, runs, 1, length)
    rows = torch.arange(num_tables).view(-1, 1, 1, 1) * table + run.expand(-1, -1, askers, -1)
    return rows.flatten().int(), torch.arange(0, rows.numel(), length).int()


def weighted_sums(
    table: UInt8[Tensor, "*shape byte"],
    chosen: tuple[Int[Tensor, " row"], Int[Tensor, " bag"]],
    weights: Float[Tensor, "*any"],
) -> Float[Tensor, "bag number"]:
    """For every bag the sum of its rows, each times its weight."""
    rows, begins = chosen
    flat, weights = table.flatten(0, -2), weights.reshape(-1)
    out: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        flat, rows, begins, False, 0, False, weights, None, False
    )
    return out


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and a scale per output channel; inputs stay as they are.

    A row of its table holds what one input channel gives to `TILE` output channels.
    """

    table: UInt8[Tensor, "tile input byte"]
    scale: Float[Tensor, " output"]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = linear.in_features, linear.out_features
        weight, scale = rounded(linear.weight.detach().float())
        tiles = F.pad(weight, (0, 0, 0, -len(weight) % TILE)).unflatten(0, (-1, TILE)).mT
        ends = row_ends(torch.ones(*tiles.shape[:2], 1))
        self.register_buffer("table", torch.cat([tiles, ends], dim=-1))
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape output"]:
        rows, tiles = x.flatten(0, -2), len(self.table)
        if len(rows) > MAX_ROWS:
            out = rows @ self._floats()
        else:
            chosen = bags(1, 0, tiles, len(rows), self.num_inputs)
            out = weighted_sums(self.table, chosen, rows.expand(tiles, -1, -1))
            out = out.view(tiles, len(rows), TILE).transpose(0, 1).flatten(1)
            out = out[:, : self.num_outputs]
        out = out * self.scale if self.bias is None else self.bias.addcmul(out, self.scale)
        return out.unflatten(0, x.shape[:-1])

    def _floats(self) -> Float[Tensor, "input output"]:
        """Weights without their scales."""
        weight = torch.empty(self.num_inputs, len(self.table), TILE)
        weight.copy_(self.table[..., :TILE].transpose(0, 1))
        return weight.flatten(1)[:, : self.num_outputs].sub_(128)


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
        self.keys = torch.zeros(*lead, tiles, head_dim, TILE + ROW_END, dtype=torch.uint8)
        self.keys[..., TILE:] = row_ends(torch.ones(1))
        self.key_scales = torch.zeros(*lead, tiles * TILE)
        # Zero bytes: slots not yet written have scale 0, and read as zeros.
        self.values = torch.zeros(*lead, tiles * TILE, head_dim + ROW_END, dtype=torch.uint8)
        self.length = 0

    def write(
        self,
        layer: int,
        start: int,
        keys: Float[Tensor, "batch kv_head new channel"],
        values: Float[Tensor, "batch kv_head new channel"],
    ) -> None:
        stop, channels = start + keys.shape[2], keys.shape[3]
        (keys, values), (key_scales, value_scales) = rounded(torch.stack([keys, values]))
        self._put_keys(layer, start, keys)
        self.key_scales[layer, :, :, start:stop] = key_scales[..., 0]
        self.values[layer, :, :, start:stop, :channels] = values
        self.values[layer, :, :, start:stop, channels:] = row_ends(value_scales)

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        batch, heads, new, channels = query.shape
        kv_heads, stop = self.shape[2], self.length + new
        tiles = -(-stop // TILE)
        tables, group = batch * kv_heads, heads // kv_heads * new
        # A tile of keys is asked by all queries that share it; the values by one after the other.
        asked = (query * scale).reshape(tables, 1, group, channels).expand(-1, tiles, -1, -1)
        chosen = bags(tables, self.keys[0, 0, 0, ..., 0].numel(), tiles, group, channels)
        scores = weighted_sums(self.keys[layer], chosen, asked).view(tables, tiles, group, TILE)
        scores = scores.transpose(1, 2).flatten(2).view(batch, kv_heads, group, -1)
        scores = scores * self.key_scales[layer, :, :, None, : tiles * TILE]
        scores[..., stop:] = -torch.inf
        if new > 1:
            later = query.new_full((new, new), -torch.inf).triu(1)
            scores[..., stop - new : stop] += later.repeat(group // new, 1)
        chosen = bags(tables, self.values.shape[3], 1, group, tiles * TILE)
        return weighted_sums(self.values[layer], chosen, scores.softmax(-1)).view(query.shape)

    def expand(self, num_futures: int) -> "Int8Cache":
        layers, batch, heads, slots, channels = self.shape
        other = Int8Cache(layers, batch * num_futures, heads, slots, channels)
        other.length = self.length
        for name in ("keys", "key_scales", "values"):
            setattr(other, name, getattr(self, name).repeat_interleave(num_futures, dim=1))
        return other

    def forget(self, num_slots: int) -> None:
        kept = self.length - num_slots
        for layer in range(self.shape[0]):
            held = self.keys[layer, ..., :TILE].mT.flatten(2, 3)
            self._put_keys(layer, 0, held[:, :, num_slots : self.length])
            for part in (self.key_scales[layer], self.values[layer]):
                part[:, :, :kept] = part[:, :, num_slots : self.length].clone()
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
