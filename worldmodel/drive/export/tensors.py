"""Numbers of networks as the bytes that the page's kernel reads, and where each begins."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.errors import BadInput
from worldmodel.codec.exact.numbers import BYTES, rounded

ALIGNED = 16  # bytes: of a SIMD vector
WIDE, HIGH = 8, 4  # the kernel takes so many inputs and outputs of a layer at once
MOST_TERMS = int(2**31 // (BYTES.inputs * BYTES.weights))  # the kernel sums in int32


def check_layers(network: nn.Module) -> None:
    """BadInput for a layer of more inputs than the kernel sums."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight[0].numel() > MOST_TERMS:
            raise BadInput(
                f"export: {name} sums {layer.weight[0].numel()} products, and the file "
                f"{MOST_TERMS} at most; drive this model by the page of the server"
            )


class Tensors:
    """Bytes that grow; every addition returns its place."""

    def __init__(self) -> None:
        self.content = bytearray(ALIGNED)  # 0 is no place: it means that something is missing

    def add(self, values: np.ndarray) -> int:
        """The place of these numbers."""
        place = len(self.content)
        self.content += values.tobytes()
        self.content += bytes(-len(self.content) % ALIGNED)
        return place

    def floats(self, values: Tensor | None) -> int:
        """Float32 numbers; 0 for none."""
        if values is None:
            return 0
        return self.add(values.detach().cpu().float().contiguous().numpy())

    def layer(self, weight: Tensor, bias: Tensor | None = None) -> dict[str, int]:
        """A linear layer [output input], rounded as `ExactArithmetic` with `BYTES` does.

        Rows and columns are padded with zeros for the kernel.
        """
        integers, scales = rounded(weight.detach().cpu(), BYTES.weights, MOST_TERMS)
        outputs, inputs = integers.shape
        below, beside = -outputs % HIGH, -inputs % WIDE
        padded = np.pad(integers.numpy().astype(np.int8), ((0, below), (0, beside)))
        further = torch.zeros(below)
        return {
            "inputs": inputs,
            "stride": inputs + beside,
            "outputs": outputs,
            "weight": self.add(padded),
            "scales": self.floats(torch.cat([scales[:, 0], further])),
            "bias": 0 if bias is None else self.floats(torch.cat([bias.detach().cpu(), further])),
        }

    def linear(self, layer: Any) -> dict[str, int]:
        return self.layer(layer.weight, layer.bias)

    def convolution(self, layer: Any) -> dict[str, int]:
        """A convolution whose rows of weights are [ky kx channel], as the kernel's patches."""
        rows = layer.weight.permute(0, 2, 3, 1).flatten(1)
        return {**self.layer(rows, layer.bias), "side": layer.kernel_size[0]}

    def norm(self, layer: Any) -> dict[str, float]:
        """Of any kind: weight and bias may be missing."""
        own = {name: self.floats(getattr(layer, name, None)) for name in ("weight", "bias")}
        return {**own, "eps": float(layer.eps), "groups": getattr(layer, "num_groups", 1)}
