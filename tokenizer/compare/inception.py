"""Inception-v3 as FID uses it: the published weights of 2015-12-05, up to the pooled features.

Module names are torchvision's, as in the PyTorch conversion of those weights. The pooling differs
from torchvision's: averages exclude the padding, and the last block takes maxima.

Source: Szegedy et al. 2016 (arXiv:1512.00567); Heusel et al. 2017 (arXiv:1706.08500).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Side = int | tuple[int, int]
# One row per convolution, in order: name, channels, kernel, stride, padding.
Layer = tuple[str, int, Side, int, Side]
FEATURES, IMAGE_SIZE = 2048, 299
WIDE, TALL = (1, 7), (7, 1)
ALONG, ACROSS = (0, 3), (3, 0)


class Inception(nn.Module):
    """Computes 2048 features per RGB image in [-1, 1] of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(128)
        self.Mixed_6c = _block_c(160)
        self.Mixed_6d = _block_c(160)
        self.Mixed_6e = _block_c(192)
        self.Mixed_7a = _block_d()
        self.Mixed_7b = InceptionBlockE(1280, "average")
        self.Mixed_7c = InceptionBlockE(2048, "maximum")

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        side = (IMAGE_SIZE, IMAGE_SIZE)
        x = F.interpolate(images.float(), size=side, mode="bilinear", align_corners=False)
        for name, layer in self.named_children():
            x = layer(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, 2)
        return x.mean((2, 3))


class Convolution(nn.Module):
    def __init__(
        self, in_channels: int, channels: int, kernel: Side, stride: int = 1, padding: Side = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionBlock(nn.Module):
    """Parallel chains of convolutions and a pooled branch; outputs are concatenated."""

    def __init__(
        self, in_channels: int, chains: Sequence[Sequence[Layer]], pool: str, pooled: int = 0
    ) -> None:
        super().__init__()
        self.chains = [[layer[0] for layer in chain] for chain in chains]
        self.pool = pool
        for chain in chains:
            width = in_channels
            for name, channels, kernel, stride, padding in chain:
                self.add_module(name, Convolution(width, channels, kernel, stride, padding))
                width = channels
        self.branch_pool = Convolution(in_channels, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._chain(names, x) for names in self.chains] + [self._pooled(x)], 1)

    def _chain(self, names: Sequence[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "average":
            pooled = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        else:
            pooled = F.max_pool2d(x, 3, 2) if self.pool == "halve" else F.max_pool2d(x, 3, 1, 1)
        return self.branch_pool(pooled)


class InceptionBlockE(InceptionBlock):
    """Two chains end in a wide and a tall convolution side by side."""

    def __init__(self, in_channels: int, pool: str) -> None:
        chains: list[list[Layer]] = [
            [("branch1x1", 320, 1, 1, 0)],
            [("branch3x3_1", 384, 1, 1, 0)],
            [("branch3x3dbl_1", 448, 1, 1, 0), ("branch3x3dbl_2", 384, 3, 1, 1)],
        ]
        super().__init__(in_channels, chains, pool, 192)
        for stem in ("branch3x3_2", "branch3x3dbl_3"):
            self.add_module(f"{stem}a", Convolution(384, 384, (1, 3), padding=(0, 1)))
            self.add_module(f"{stem}b", Convolution(384, 384, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> Tensor:
        single, *forked = (self._chain(names, x) for names in self.chains)
        parts = [single]
        for stem, trunk in zip(("branch3x3_2", "branch3x3dbl_3"), forked, strict=True):
            parts += [self.get_submodule(f"{stem}{end}")(trunk) for end in "ab"]
        return torch.cat([*parts, self._pooled(x)], 1)


def _block_a(in_channels: int, pooled: int) -> InceptionBlock:
    chains: list[list[Layer]] = [
        [("branch1x1", 64, 1, 1, 0)],
        [("branch5x5_1", 48, 1, 1, 0), ("branch5x5_2", 64, 5, 1, 2)],
        [
            ("branch3x3dbl_1", 64, 1, 1, 0),
            ("branch3x3dbl_2", 96, 3, 1, 1),
            ("branch3x3dbl_3", 96, 3, 1, 1),
        ],
    ]
    return InceptionBlock(in_channels, chains, "average", pooled)


def _block_b(in_channels: int) -> InceptionBlock:
    chains: list[list[Layer]] = [
        [("branch3x3", 384, 3, 2, 0)],
        [
            ("branch3x3dbl_1", 64, 1, 1, 0),
            ("branch3x3dbl_2", 96, 3, 1, 1),
            ("branch3x3dbl_3", 96, 3, 2, 0),
        ],
    ]
    return InceptionBlock(in_channels, chains, "halve")


def _block_c(width: int) -> InceptionBlock:
    chains: list[list[Layer]] = [
        [("branch1x1", 192, 1, 1, 0)],
        [
            ("branch7x7_1", width, 1, 1, 0),
            ("branch7x7_2", width, WIDE, 1, ALONG),
            ("branch7x7_3", 192, TALL, 1, ACROSS),
        ],
        [
            ("branch7x7dbl_1", width, 1, 1, 0),
            ("branch7x7dbl_2", width, TALL, 1, ACROSS),
            ("branch7x7dbl_3", width, WIDE, 1, ALONG),
            ("branch7x7dbl_4", width, TALL, 1, ACROSS),
            ("branch7x7dbl_5", 192, WIDE, 1, ALONG),
        ],
    ]
    return InceptionBlock(768, chains, "average", 192)


def _block_d() -> InceptionBlock:
    chains: list[list[Layer]] = [
        [("branch3x3_1", 192, 1, 1, 0), ("branch3x3_2", 320, 3, 2, 0)],
        [
            ("branch7x7x3_1", 192, 1, 1, 0),
            ("branch7x7x3_2", 192, WIDE, 1, ALONG),
            ("branch7x7x3_3", 192, TALL, 1, ACROSS),
            ("branch7x7x3_4", 192, 3, 2, 0),
        ],
    ]
    return InceptionBlock(768, chains, "halve")
