"""A plain vision transformer, with weights in timm's layout or none."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import BadInput, first_line
from training.foreign.weights import fill_same, read_file
from training.optimization.recompute import Layers

IGNORED = ("head.", "fc_norm.", "mask_token")
RENAMED = {"register_tokens": "reg_token"}  # in the files of DINOv2's authors


class VisionTransformer(nn.Module):
    """Pre-norm transformer over image patches (Dosovitskiy et al. 2020, arXiv 2010.11929).

    Names are timm's, which the weights of DINO, DINOv2 (layer scale, registers) and MAE share.

    Args:
        grid: (rows, columns) of patches.
        registers: extra tokens without a position (DINOv2 with registers).
        layer_scale: a learned factor on every residual branch (DINOv2).
    """

    def __init__(
        self,
        grid: tuple[int, int],
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        registers: int = 0,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.registers = grid, registers
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if registers:
            self.reg_token = nn.Parameter(torch.zeros(1, registers, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + grid[0] * grid[1], dim))
        self.blocks = Layers(*(ViTBlock(dim, heads, layer_scale) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        """Features of the patches; images must be normalised for the weights."""
        patches = rearrange(self.patch_embed["proj"](images), "n d gh gw -> n (gh gw) d")
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed
        if self.registers:
            registers = self.reg_token.expand(len(images), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
        features = self.norm(self.blocks(x))[:, 1 + self.registers :]
        return rearrange(features, "n (gh gw) d -> n gh gw d", gh=self.grid[0])


class ViTBlock(nn.Module):
    """Attention and an MLP of four times the width, each with a residual."""

    def __init__(self, dim: int, heads: int, layer_scale: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        scale = LayerScale if layer_scale else nn.Identity
        self.ls1, self.ls2 = scale(dim), scale(dim)

    def forward(self, x: Float[Tensor, "n tokens dim"]) -> Float[Tensor, "n tokens dim"]:
        pattern = "n t (three heads c) -> three n heads t c"
        q, k, v = rearrange(self.attn["qkv"](self.norm1(x)), pattern, three=3, heads=self.heads)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "n heads t c -> n t (heads c)")
        x = x + self.ls1(self.attn["proj"](out))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2(self.mlp["fc2"](hidden))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def load_vit(network: VisionTransformer, weights: str) -> None:
    """Fill a transformer from "FILE" (.safetensors, .pth) or "timm:NAME" (needs timm).

    A position embedding for another grid is interpolated (bicubic, as in DINO). Where it has no
    entry for the class token (timm's DINOv2 with registers), that token gets none.

    Raises:
        BadInput: the file cannot be read, or as `fill_same`.
    """
    source = {RENAMED.get(key, key): value for key, value in _read(weights).items()}
    if isinstance(source.get("pos_embed"), Tensor):
        source["pos_embed"] = fit_positions(source["pos_embed"], network.grid, weights)
    network.load_state_dict(fill_same(network.state_dict(), source, IGNORED, f"weights={weights}"))


def fit_positions(
    table: Float[Tensor, "1 n dim"], grid: Sequence[int], weights: str = "weights"
) -> Float[Tensor, "1 m dim"]:
    """Interpolate a position embedding (a square, perhaps after a class token) to another grid.

    Raises:
        BadInput: its positions form no square.
    """
    count = table.shape[1]
    side = math.isqrt(count)
    if side**2 == count:
        table = F.pad(table, (0, 0, 1, 0))
    else:
        side = math.isqrt(count - 1)
    if side**2 + 1 != table.shape[1]:
        raise BadInput(f"weights={weights}: its {count} positions are no square; give square ones")
    if (side, side) == tuple(grid):
        return table
    places = rearrange(table[:, 1:], "1 (h w) d -> 1 d h w", h=side).float()
    fitted = F.interpolate(places, tuple(grid), mode="bicubic", antialias=False)
    return torch.cat([table[:, :1].float(), rearrange(fitted, "1 d h w -> 1 (h w) d")], 1)


def _read(weights: str) -> dict[str, Any]:
    if weights.startswith("timm:"):
        name = weights.removeprefix("timm:")
        return open_timm(name, f"weights={weights}", pretrained=True).state_dict()
    return read_file(Path(weights), "weights", "give a state dict, or timm:NAME")


def open_timm(name: str, where: str, **options: Any) -> Any:
    """A network of timm, without a classifier.

    Args:
        where: the setting that names it, for messages.

    Raises:
        BadInput: timm is not installed, does not know the name, or cannot fetch the weights.
    """
    try:
        import timm
    except ImportError as error:
        raise BadInput(
            f"{where}: needs the package timm; pip install 'dashcast[teachers]'"
        ) from error
    try:
        return timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, TypeError, OSError, ValueError) as error:
        raise BadInput(
            f"{where}: timm cannot make it ({first_line(error)}); give the name of a vision "
            "transformer in timm, or a file where the hub is not reached"
        ) from error
