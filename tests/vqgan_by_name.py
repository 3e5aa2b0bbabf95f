"""A second VQGAN, written as functions of published names: what the adapters are held against.

It makes a weight, at random, when it first asks for it, and so the state dicts of the tests as
well. Nothing of `tokenizer.networks.vqgan` is used.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class ByName:
    """The names of one codebase.

    Args:
        layout: "taming", "llamagen" or "open_magvit2".
        dim: channels of the codes.
        multipliers: of 32 channels, per resolution.
    """

    def __init__(self, layout: str, dim: int, multipliers=(1, 2), blocks: int = 1) -> None:
        self.layout, self.dim, self.multipliers, self.blocks = layout, dim, multipliers, blocks
        self.random = torch.Generator().manual_seed(0)
        self.weights: dict[str, Tensor] = {}

    def latents(self, frames: Tensor) -> Tensor:
        """What the quantizer sees: [n dim h w]."""
        magvit, last = self.layout == "open_magvit2", len(self.multipliers) - 1
        x = self.conv("encoder.conv_in", frames, 32, bias=not magvit)
        for level, multiplier in enumerate(self.multipliers):
            at = self.level("encoder", level)
            x = self.resolution(at, x, 32 * multiplier, self.blocks, level == last)
            if level < last and magvit:
                x = self.conv(f"{at}.downsample", x, x.shape[1], stride=2)
            elif level < last:
                padded = F.pad(x, (0, 1, 0, 1))
                x = self.conv(f"{at}.downsample.conv", padded, x.shape[1], stride=2, padding=0)
        x = F.silu(self.norm("encoder.norm_out", self.middle("encoder", x)))
        if magvit:
            return self.conv("encoder.conv_out", x, self.dim, 1)
        return self.conv("quant_conv", self.conv("encoder.conv_out", x, 16), self.dim, 1)

    def frames(self, codes: Tensor) -> Tensor:
        """Of codes [n dim h w], not clamped."""
        magvit = self.layout == "open_magvit2"
        x = codes if magvit else self.conv("post_quant_conv", codes, 16, 1)
        x = self.conv("decoder.conv_in", x, 32 * self.multipliers[-1])
        x = self.middle("decoder", x)
        for level in range(len(self.multipliers) - 1, -1, -1):
            at, width = self.level("decoder", level), 32 * self.multipliers[level]
            if magvit:
                x = self.adaptive(f"decoder.adaptive.{level}", x, codes)
            deepest = level == len(self.multipliers) - 1
            x = self.resolution(at, x, width, self.blocks + (not magvit), deepest)
            if level and magvit:
                x = self.spread(self.conv(f"{at}.upsample.conv1", x, 4 * width))
            elif level:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(f"{at}.upsample.conv", x, width)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)), 3)

    def tokens(self, latents: Tensor) -> Tensor:
        """[n h w]: bits from the lowest (LFQ), the nearest direction, or the largest product."""
        z = latents.movedim(1, -1)
        if self.layout == "open_magvit2":
            return sum((z[..., bit] > 0).long() << bit for bit in range(self.dim))
        book = self.codes()
        if self.layout == "llamagen":
            return (
                torch.cdist(F.normalize(z, dim=-1).flatten(0, 2), book).argmin(1).view(z.shape[:3])
            )
        return (z @ book.T).argmax(-1)

    def looked_up(self, tokens: Tensor) -> Tensor:
        """Codes [n dim h w] of tokens."""
        if self.layout == "open_magvit2":
            bits = torch.stack([(tokens >> bit) % 2 for bit in range(self.dim)], 1)
            return 2.0 * bits - 1
        return self.codes()[tokens].movedim(-1, 1)

    def codes(self) -> Tensor:
        book = self.get("quantize.embedding.weight", (48, self.dim))
        return F.normalize(book, dim=-1) if self.layout == "llamagen" else book

    def level(self, half: str, level: int) -> str:
        if self.layout != "llamagen":
            return f"{half}.{'down' if half == 'encoder' else 'up'}.{level}"
        number = level if half == "encoder" else len(self.multipliers) - 1 - level
        return f"{half}.conv_blocks.{number}"

    def resolution(self, at: str, x: Tensor, width: int, blocks: int, attends: bool) -> Tensor:
        for i in range(blocks):
            x = self.block(f"{at}.{'res' if self.layout == 'llamagen' else 'block'}.{i}", x, width)
            if attends and self.layout != "open_magvit2":
                x = self.attention(f"{at}.attn.{i}", x)
        return x

    def middle(self, half: str, x: Tensor) -> Tensor:
        if self.layout == "open_magvit2":
            for i in range(self.blocks):
                x = self.block(f"{half}.mid_block.{i}", x, x.shape[1])
            return x
        names = ("0", "1", "2") if self.layout == "llamagen" else ("block_1", "attn_1", "block_2")
        x = self.attention(
            f"{half}.mid.{names[1]}", self.block(f"{half}.mid.{names[0]}", x, x.shape[1])
        )
        return self.block(f"{half}.mid.{names[2]}", x, x.shape[1])

    def block(self, name: str, x: Tensor, width: int) -> Tensor:
        bias = self.layout != "open_magvit2"
        hidden = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), width, bias=bias)
        hidden = F.silu(self.norm(f"{name}.norm2", hidden))
        hidden = self.conv(f"{name}.conv2", hidden, width, bias=bias)
        if x.shape[1] != width:
            x = self.conv(f"{name}.nin_shortcut", x, width, 1, bias=bias)
        return x + hidden

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        seen = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", seen, c, 1).reshape(n, c, h * w) for part in "qkv")
        share = (q.transpose(1, 2) @ k / math.sqrt(c)).softmax(-1)
        return x + self.conv(f"{name}.proj_out", (v @ share.transpose(1, 2)).view(n, c, h, w), c, 1)

    def adaptive(self, name: str, x: Tensor, codes: Tensor) -> Tensor:
        c, (mean, deviation) = x.shape[1], (codes.mean((2, 3)), (codes.var((2, 3)) + 1e-6).sqrt())
        scale, shift = (
            values @ self.get(f"{name}.{part}.weight", (c, self.dim)).T
            + self.get(f"{name}.{part}.bias", (c,))
            for part, values in (("gamma", deviation), ("beta", mean))
        )
        return scale[..., None, None] * F.group_norm(x, 32, eps=1e-6) + shift[..., None, None]

    def spread(self, x: Tensor) -> Tensor:
        """Depth to space: a quarter of the channels for each of a 2x2 block's pixels."""
        n, c, h, w = x.shape
        out = x.new_empty(n, c // 4, 2 * h, 2 * w)
        for i, part in enumerate(x.chunk(4, 1)):
            out[:, :, i // 2 :: 2, i % 2 :: 2] = part
        return out

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.get(f"{name}.{part}", (x.shape[1],)) for part in ("weight", "bias"))
        return F.group_norm(x, 32, weight, bias, 1e-6)

    def conv(self, name: str, x: Tensor, out: int, size=3, stride=1, padding=None, bias=True):
        weight = self.get(f"{name}.weight", (out, x.shape[1], size, size))
        added = self.get(f"{name}.bias", (out,)) if bias else None
        return F.conv2d(x, weight, added, stride, size // 2 if padding is None else padding)

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.weights:
            scale = 0.3 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
            drawn = scale * torch.randn(shape, generator=self.random)
            self.weights[name] = drawn + 1 if "norm" in name and name.endswith("weight") else drawn
        return self.weights[name]
