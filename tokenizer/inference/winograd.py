"""3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray 2015 (arXiv 1509.09308), section 4.3. For processors whose libraries compute 3x3
convolutions directly; for inference in float32, whose rounding errors it about triples. On a CPU
with a C compiler all of it is one C function (`winograd.c`).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.inference.native import Convolved, Functions, addresses, functions_for, pixels_of
from tokenizer.networks.vqgan_blocks import NearestUpsample

TILE, SEEN = 4, 6  # side of an output tile and of its receptive field
EVERYWHERE = 7  # the product that every pixel of a tile holds once, as OUTPUT says
BLOCK = 128  # tiles per block: their data stay in the cache
LANES, WIDE, SPAN = 8, 16, 24  # of winograd.c
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConv2d(nn.Module):
    """Replaces a 3x3 convolution of stride 1 and padding 1; inference only.

    A `NearestUpsample` doubles the pixels before its convolution; C reads each of them four times.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        assert (conv.groups, conv.dilation) == (1, (1, 1))
        side, weight = torch.tensor(KERNEL, dtype=torch.float64), conv.weight.detach().double()
        spread = torch.einsum("ai,ocij,bj->abco", side, weight.cpu(), side).flatten(0, 1)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        for name, value in (
            ("weight", spread.float().contiguous()),
            ("bias", bias),
            ("into", _both_axes(INPUT)),
            ("out_of", _both_axes(OUTPUT)),
        ):
            self.register_buffer(name, value)
        self.doubles = isinstance(conv, NearestUpsample)
        self.whole_lanes = conv.in_channels % LANES == conv.out_channels % WIDE == 0
        self.panels: Tensor | None = None  # the weight as the C function reads it
        self.weight: Tensor
        self.bias: Tensor
        self.into: Tensor
        self.out_of: Tensor

    def forward(
        self, x: Float[Tensor, "n c h w"], plus: Float[Tensor, "n d h2 w2"] | None = None
    ) -> Float[Tensor, "n d h2 w2"]:
        """The convolution of x, plus what is given."""
        functions = functions_for(x) if self.whole_lanes else None
        if functions is not None:
            return self._native(functions, x, plus)
        made = self._in_torch(NearestUpsample.doubled(x) if self.doubles else x)
        return made if plus is None else plus + made

    def _native(
        self,
        functions: Functions,
        x: Float[Tensor, "n c h w"],
        plus: Float[Tensor, "n d h2 w2"] | None,
    ) -> Float[Tensor, "n d h2 w2"]:
        count, channels, height, width = x.shape
        height, width = height << self.doubles, width << self.doubles
        many, threads = self.weight.shape[-1], torch.get_num_threads()
        if self.panels is None:
            self.panels = self.weight.unflatten(2, (-1, WIDE)).transpose(1, 2).contiguous()
        out = x.new_empty(count, height, width, many)
        room = x.new_empty(threads, SEEN**2 * SPAN * (channels + many))
        pixels, more = pixels_of(x), None if plus is None else pixels_of(plus)
        pointers = addresses(pixels, self.panels, self.bias, more, out, room)
        numbers = count, height, width, channels, many, threads, self.doubles
        functions.winograd(Convolved(*pointers, *numbers))
        return out.permute(0, 3, 1, 2)

    def _in_torch(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        count, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        rows, frames = max(1, BLOCK // across), max(1, BLOCK // (down * across))
        pixels = x.permute(0, 2, 3, 1)
        out = x.new_empty(count, down, TILE, across, TILE, self.weight.shape[-1])
        sides = (min(rows, down) * TILE + 2, across * TILE + 2)
        seen = x.new_zeros(min(frames, count), *sides, channels)  # every block is laid in here
        for i in range(0, count, frames):
            for r in range(0, down, rows):
                padded = _laid_in(seen, pixels[i : i + frames], r, min(down, r + rows))
                tiles = padded.unfold(1, SEEN, TILE).unfold(2, SEEN, TILE)  # n down across c 6 6
                block = tiles.permute(0, 1, 2, 4, 5, 3)
                made = self._block(block.reshape(-1, SEEN**2, channels))
                place = out[i : i + frames, r : r + rows].transpose(2, 3)
                place.copy_(made.view(*block.shape[:3], TILE, TILE, -1))
        image = out.view(count, TILE * down, TILE * across, -1)[:, :height, :width]
        return image.permute(0, 3, 1, 2)

    def _block(self, tiles: Float[Tensor, "t 36 c"]) -> Float[Tensor, "t 16 d"]:
        products = torch.bmm((self.into @ tiles).transpose(0, 1), self.weight)
        products[EVERYWHERE] += self.bias
        return self.out_of @ products.transpose(0, 1)


def _laid_in(
    seen: Float[Tensor, "n r v c"], pixels: Float[Tensor, "m h w c"], first: int, last: int
) -> Float[Tensor, "m s v c"]:
    """What the rows of tiles from `first` to `last` - 1 see, in `seen`, whose sides stay zero."""
    height, width = pixels.shape[1:3]
    top, bottom = first * TILE - 1, last * TILE + 1
    padded = seen[: len(pixels), : bottom - top]
    above, below = max(0, -top), max(0, bottom - height)
    padded[:, :above] = 0
    padded[:, bottom - top - below :] = 0
    inside = pixels[:, top + above : bottom - below]
    padded[:, above : above + inside.shape[1], 1 : 1 + width] = inside
    return padded


def _both_axes(rows: tuple[tuple[int, ...], ...]) -> Float[Tensor, "out in"]:
    """A transform of columns and rows of a flattened tile in one matrix."""
    side = torch.tensor(rows, dtype=torch.float32)
    return torch.kron(side, side)
