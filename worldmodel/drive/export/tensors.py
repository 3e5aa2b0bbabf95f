"""Numbers of networks as the bytes that the page's kernel reads, and where each begins."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.codec.exact import numbers

ALIGNED = 16  # bytes: of a SIMD vector
WIDE, HIGH = 8, 4  # the kernel takes so many inputs and outputs of a layer at once


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
        """A linear layer [output input], rounded as `ExactArithmetic` with `numbers.BYTES` does.

        Rows and columns are padded with zeros for the kernel.

        Raises:
            BadInput: more inputs than can be summed.
        """
        grain = numbers.BYTES
        integers, scales = numbers.rounded(weight.detach().cpu(), grain.weights, grain.most_terms)
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
