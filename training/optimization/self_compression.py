"""Self-compression: every channel learns how many bits its weights need (arXiv 2301.13142).

Within a training network each row of a matrix (an output channel, an embedding) is rounded to a
grid of its own (equation 1 there, with a symmetric range):

    q = 2^e round(clip(w / 2^e, -m, m)),    m = (2^b - 1) / 2

Gradients pass the rounding as if it were not there. So the loss moves the depth b through what is
clipped, and the exponent e through the steps; the price of b draws it down. At b = 0 the row is
zero: the channel is pruned. The checkpoint keeps w, b and e under the names of torch's
parametrizations; `settled` makes plain weights of them, which lie on their grids to the bit.
"""

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

START, MOST = 6.0, 12.0  # bits of a weight
WIDER = 2.0  # how far the first range reaches, in units of the row's largest weight
# Adam moves a number by about the learning rate per step: these turn that into bits.
BITS_PACE, EXPONENT_PACE = 32.0, 8.0
RISE = 0.5  # share of the steps in which the price of a bit rises to its own
OWN = re.compile(r"\.parametrizations\.(\w+)\.(original|0\.bits|0\.exponent)$")


class LearnedGrid(nn.Module):
    """The grid of every row of a weight.

    Attributes:
        bits: b / BITS_PACE.
        exponent: e / EXPONENT_PACE, before it is rounded.
    """

    def __init__(self, weight: Float[Tensor, "row *rest"]) -> None:
        super().__init__()
        self.columns = weight[0].numel()
        largest = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-2)
        exponent = (largest * WIDER).log2() - (START - 1)
        self.bits = nn.Parameter(torch.full_like(largest, START / BITS_PACE))
        self.exponent = nn.Parameter(exponent / EXPONENT_PACE)

    @property
    def depth(self) -> Float[Tensor, " row"]:
        """Bits of a weight, from 0 to `MOST`."""
        return (self.bits * BITS_PACE).clamp(0, MOST)

    def forward(self, weight: Float[Tensor, "row *rest"]) -> Float[Tensor, "row *rest"]:
        step = torch.exp2(_straight(self.exponent * EXPONENT_PACE))
        most = (torch.exp2(self.depth) - 1) / 2
        shape = (-1,) + (1,) * (weight.ndim - 1)
        step, most = step.view(shape), most.view(shape)
        places = torch.minimum(torch.maximum(weight / step, -most), most)
        return step * _straight(places)


def _straight(x: Tensor) -> Tensor:
    """Rounded; the gradient passes unchanged."""
    return x + (x.round() - x).detach()


def learn_depths(network: nn.Module) -> None:
    """Give every matrix of a network a grid that it learns; in place.

    What has a parametrization already (shared factors) keeps its numbers, which cost nothing.
    """
    for where, module in list(network.named_modules()):
        if parametrize.is_parametrized(module) or "parametrizations" in where:
            continue
        for name, value in list(module.named_parameters(recurse=False)):
            if value.ndim > 1 and value.requires_grad:
                parametrize.register_parametrization(module, name, LearnedGrid(value))


def weight_bits(network: nn.Module) -> Float[Tensor, ""]:
    """Bits of all weights that have a grid."""
    grids = [module for module in network.modules() if isinstance(module, LearnedGrid)]
    return torch.stack([grid.depth.sum() * grid.columns for grid in grids]).sum()


def price(step: int, max_steps: int) -> float:
    """Of a bit, as a share of its own.

    It begins at 0: a layer that is pruned before it has learned anything never comes back.
    """
    return min(1.0, step / max(1.0, RISE * max_steps))


@torch.no_grad()
def settled(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a state dict under their plain names, rounded to their grids."""
    found = {}
    for name, value in weights.items():
        own, lead = OWN.search(name), name.removesuffix("original")
        if own is None or (lead != name and f"{lead}0.bits" not in weights):
            found[name] = value  # of no grid, but perhaps of another parametrization
        elif lead != name:
            grid = LearnedGrid(value)
            parts = {part: weights[f"{lead}0.{part}"] for part in ("bits", "exponent")}
            grid.load_state_dict(parts)
            found[f"{name[: own.start()]}.{own[1]}"] = grid(value)
    return found
