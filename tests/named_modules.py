"""Modules made of a state dict: what an archive of TorchScript with such names is made of."""

from torch import Tensor, nn


class Tree(nn.Module):
    """Modules nested as the names of tensors say, with a forward that would betray itself."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name in {key.split(".")[0] for key in weights if "." in key}:
            inner = {k.split(".", 1)[1]: v for k, v in weights.items() if k.startswith(f"{name}.")}
            self.add_module(name, Tree(inner))
        for name, value in weights.items():
            if "." not in name and value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value))
            elif "." not in name:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("the archive's code ran")


class Traced(Tree):
    """The same, to be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1
