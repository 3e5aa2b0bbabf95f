"""A GPT in 8 bits for one-token steps on a CPU: weights and key-value cache.

Decoding one token reads every weight and the cache once, so bytes are time. A product with one row
is a weighted sum of table rows: an embedding bag. Its kernel (fbgemm, in PyTorch on any x86 CPU)
reads 8-bit rows at memory speed and sums in float32.
"""

from collections.abc import Iterable
from copy import copy
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor, nn

from worldmodel.dynamics.cache import KVCache

TILE = 96  # largest row: the kernel sums this many values in registers
ROW_END = 8  # bytes at the end of a row: scale and offset
TINY, HALF_UP, OFFSET = torch.tensor(1e-30), torch.tensor(128.5), torch.tensor([1.0, -128.0])
MAX_ROWS = 32  # for more rows, a product with float32 weights is faster


def why_not_int8(device: torch.device) -> str | None:
    """The reason why 8 bits are not possible here; None if they are."""
    if device.type != "cpu":
        return f"its products are for a CPU, and the model is on {device}; use bfloat16"
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return "its products are fbgemm's, which this PyTorch is built without; use bfloat16"
    return None


def quantize(parents: Iterable[nn.Module]) -> None:
    """Replace every linear child of these modules by an `Int8Linear`."""
    for parent in list(parents):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))


def rounded(
    x: Float[Tensor, "*shape dim"],
) -> tuple[UInt8[Tensor, "*shape dim"], Float[Tensor, "*shape 1"]]:
    """Quantize vectors to (bytes - 128) * scale, with the smallest scale that fits."""
    scale = torch.add(TINY, x.abs().amax(-1, keepdim=True), alpha=1 / 127)
    return torch.addcdiv(HALF_UP, x, scale).to(torch.uint8), scale


def row_ends(scale: Float[Tensor, "*shape 1"]) -> UInt8[Tensor, "*shape end"]:
    """Scale and offset bytes for rows from `rounded`."""
    return (scale * OFFSET).view(torch.uint8)


@lru_cache(maxsize=32)  # all layers and tokens use the same
def bags(
    num_tables: int, table: int, runs: int, queries: int, length: int
) -> tuple[Int[Tensor, " summand"], Int[Tensor, " bag"]]:
    """Row indices and bag starts of [table run query] bags with `length` rows each.

    Args:
        table: number of rows per table.
        runs: consecutive runs of `length` rows from the start of a table.
        queries: bags that sum the same run.
    """
    run = torch.arange(runs * length).view(1, runs, 1, length)
    rows = torch.arange(num_tables).view(-1, 1, 1, 1) * table + run.expand(-1, -1, queries, -1)
    return rows.flatten().int(), torch.arange(0, rows.numel(), length).int()


@lru_cache(maxsize=4)
def unseen(new: int, stop: int, width: int, groups: int) -> Float[Tensor, "query position"]:
    """Causal mask for the scores of the newest of `stop` positions: -inf for later ones."""
    later = torch.full((new, width), -torch.inf).triu(stop - new + 1)
    return later.repeat(groups, 1)


def weighted_sums(
    table: UInt8[Tensor, "row byte"],
    chosen: tuple[Int[Tensor, " summand"], Int[Tensor, " bag"]],
    weights: Float[Tensor, "*any"],
) -> Float[Tensor, "bag number"]:
    """The weighted sum of the rows of every bag."""
    rows, begins = chosen
    out: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default(
        table, rows, begins, False, 0, False, weights.reshape(-1), None, False
    )
    return out


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and a scale per output channel; inputs stay float32.

    A row of its table holds the weights from one input channel to a tile of output channels. The
    number of tiles is even, so that two threads share them.

    Attributes:
        num_bytes: bytes that a product reads.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = linear.in_features, linear.out_features
        self.num_tiles = 2 * -(-self.num_outputs // (2 * TILE))
        self.width = 8 * -(-self.num_outputs // (8 * self.num_tiles))
        weight, scale = rounded(linear.weight.detach().float())
        weight = F.pad(weight, (0, 0, 0, self.num_tiles * self.width - len(weight)))
        rows = weight.unflatten(0, (self.num_tiles, -1)).mT.flatten(0, 1)
        # Not buffers: these never move, and reading a buffer costs a microsecond.
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
            weights = x.reshape(count, -1).expand(tiles, -1, -1)
            out = weighted_sums(self.table, chosen, weights)
            if count > 1:
                out = out.view(tiles, count, -1).transpose(0, 1)
            out = out.reshape(*x.shape[:-1], -1)
        if out.shape[-1] > self.num_outputs:
            out = out[..., : self.num_outputs]
        return out * self.scale if self.bias is None else self.bias.addcmul(out, self.scale)

    def rows(self) -> Int8[Tensor, "output input"]:
        """A copy of the unscaled weights, an output per row."""
        weight = self._tiles().permute(0, 2, 1).flatten(0, 1)[: self.num_outputs]
        return weight.bitwise_xor(128).view(torch.int8)

    def _floats(self) -> Float[Tensor, "input tiled"]:
        """Unscaled float32 weights; the last tile is padded."""
        weight = torch.empty(self.num_inputs, self.num_tiles, self.width)
        return weight.copy_(self._tiles().transpose(0, 1)).flatten(1).sub_(128)

    def _tiles(self) -> UInt8[Tensor, "tile input width"]:
        return self.table.view(self.num_tiles, self.num_inputs, -1)[..., : self.width]


class Int8Cache(KVCache):
    """Keys and values in 8 bits, each vector with a scale.

    A row of values holds the channels of a position, weighted by a probability:
    [layer batch head position byte]. A row of keys holds a channel of `TILE` positions, weighted
    by a query: [layer batch head tile channel byte].
    """

    def __init__(
        self, num_layers: int, batch: int, num_heads: int, num_positions: int, head_dim: int
    ) -> None:
        self.shape = num_layers, batch, num_heads, num_positions, head_dim
        tiles = -(-num_positions // TILE)
        lead = (num_layers, batch, num_heads)
        keys = torch.zeros(*lead, tiles, head_dim, TILE + ROW_END, dtype=torch.uint8)
        keys[..., TILE:] = row_ends(torch.ones(1))
        # Zero bytes: unwritten positions have scale 0 and read as zeros.
        values = torch.zeros(*lead, tiles * TILE, head_dim + ROW_END, dtype=torch.uint8)
        self._hold(keys, values, torch.zeros(*lead, 1, tiles * TILE))
        self.length = 0

    def _hold(self, keys: Tensor, values: Tensor, key_scales: Tensor) -> None:
        self.keys, self.values, self.key_scales = keys, values, key_scales
        # Views per layer, made once: a view costs microseconds.
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
        quantized, scales = rounded(torch.stack([keys, values]))
        self._put_keys(layer, start, quantized[0])
        self.key_scales[layer, ..., start:stop] = scales[0].mT
        self.values[layer, :, :, start:stop] = torch.cat(
            [quantized[1], row_ends(scales[1])], dim=-1
        )

    def attend(
        self, layer: int, query: Float[Tensor, "batch head new channel"], scale: float
    ) -> Float[Tensor, "batch head new channel"]:
        new = query.shape[2]
        grouped = query.unflatten(1, (self.shape[2], -1)).flatten(2, 3)
        out = self.sums(layer, self.scores(layer, grouped, scale, new).softmax(-1))
        return out.view(query.shape)

    def scores(
        self,
        layer: int,
        query: Float[Tensor, "batch kv_head query channel"],
        scale: float,
        new: int,
    ) -> Float[Tensor, "batch kv_head query padded"]:
        """As `KVCache.scores`, up to the end of a tile; -inf behind the newest position.

        Queries of later positions (new=0) need full tiles.
        """
        batch, kv_heads, group, channels = query.shape
        stop = self.length + new
        tables, tiles = batch * kv_heads, -(-stop // TILE)
        width, run = tiles * TILE, self.capacity // TILE * channels
        # Queries that share keys read a tile of keys together, but the values one by one.
        weights = (query * scale).reshape(tables, 1, group, channels).expand(-1, tiles, -1, -1)
        chosen = bags(tables, run, tiles, group, channels)
        scores = weighted_sums(self._key_tables[layer], chosen, weights)
        if group > 1:
            scores = scores.view(tables, tiles, group, TILE).transpose(1, 2)
        scores = scores.reshape(tables, group, width)
        scales = self._layer_scales[layer][..., :width]
        if new:
            scores = unseen(new, stop, width, group // new).addcmul(scores, scales)
        else:
            scores = scores * scales
        return scores.view(batch, kv_heads, group, width)

    def sums(
        self, layer: int, weights: Float[Tensor, "batch kv_head query padded"]
    ) -> Float[Tensor, "batch kv_head query channel"]:
        batch, kv_heads, group, width = weights.shape
        chosen = bags(batch * kv_heads, self.capacity, 1, group, width)
        out = weighted_sums(self._value_tables[layer], chosen, weights)
        return out.view(batch, kv_heads, group, -1)

    def empty(self, batch: int, num_positions: int) -> "Int8Cache":
        layers, _, heads, _, channels = self.shape
        return Int8Cache(layers, batch, heads, num_positions, channels)

    def take(self, other: "Int8Cache", start: int, stop: int, at: int = 0, times: int = 1) -> None:
        to = slice(at, at + stop - start)
        for layer in range(self.shape[0]):
            held = other.keys[layer, ..., :TILE].mT.flatten(2, 3)[:, :, start:stop]
            self._put_keys(layer, at, held.repeat_interleave(times, dim=0))
            for mine, theirs in (
                (self.key_scales.mT, other.key_scales.mT),
                (self.values, other.values),
            ):
                past = theirs[layer, :, :, start:stop].repeat_interleave(times, dim=0)
                mine[layer, :, :, to] = past

    def rows(self, rows: slice) -> "Int8Cache":
        other = copy(self)
        parts = self.keys[:, rows], self.values[:, rows], self.key_scales[:, rows]
        other.shape = (self.shape[0], parts[0].shape[1], *self.shape[2:])
        other._hold(*parts)
        return other

    @property
    def num_bytes(self) -> int:
        total = sum(part.nbytes for part in (self.keys, self.key_scales, self.values))
        return total * self.length // self.key_scales.shape[-1]

    def _put_keys(
        self, layer: int, start: int, keys: UInt8[Tensor, "batch kv_head new channel"]
    ) -> None:
        stop = start + keys.shape[2]
        for tile in range(start // TILE, -(-stop // TILE)):
            begin = tile * TILE
            first, last = max(start, begin), min(stop, begin + TILE)
            part = keys[:, :, first - start : last - start]
            self.keys[layer, :, :, tile, :, first - begin : last - begin] = part.mT
