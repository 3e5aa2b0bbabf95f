"""Width transfer (muP): a wide network uses the learning rate of a narrow one.

Yang et al. 2022 (arXiv 2203.03466), table 8 with Adam, as multiples of the network at
`mup_base_width`. r = mup_base_width / dim:

| parameter                                             | init std | learning rate | output |
|-------------------------------------------------------|----------|---------------|--------|
| hidden: two sides grow with the width                 | sqrt(r)  | r             |        |
| one side grows, and it is what is written: ids,       | 1        | 1             |        |
|   positions, first layers of actions and text; 1-D    |          |               |        |
| one side grows, and it is what is read: heads, tied   | 1        | 1             | r      |
|   or not                                              |          |               |        |
| conditions of a factorised head: added behind that r  | r        | r             |        |

The sides that grow are found from the shapes of the network at twice the width
(`DynamicsConfig.widened`), not from names. `look_back` starts at 1 / sqrt(inputs) anyway.
Attention keeps 1 / sqrt(head_dim), so add heads of the same size to widen. Weight decay is divided
by the learning-rate multiple: AdamW decays by their product, which stays the same at every width.
Not transferred: depth, batch size, the number of steps.
"""

import math
from typing import NamedTuple

import torch

from worldmodel.dynamics.base import Dynamics

CONDITIONS = "head.conditions."


class Multiple(NamedTuple):
    """Factors of the initial standard deviation and of the learning rate."""

    start: float = 1.0
    rate: float = 1.0


def multiples(network: Dynamics) -> dict[str, Multiple]:
    """Multiples of every parameter by name; all 1 at the base width."""
    names, ratio = dict(network.named_parameters()), network.config.width_ratio
    if ratio == 1:
        return dict.fromkeys(names, Multiple())
    with torch.device("meta"):  # shapes alone: no memory, and no random numbers are drawn
        twin = type(network)(network.config.widened(), network.spec, network.num_actions)
        wide = dict(twin.named_parameters())
    found = {}
    for name, parameter in names.items():
        sides = zip(parameter.shape, wide[name].shape, strict=True)
        if sum(here != there for here, there in sides) >= 2:
            found[name] = Multiple(math.sqrt(ratio), ratio)
        elif name.startswith(CONDITIONS):
            found[name] = Multiple(ratio, ratio)
        else:
            found[name] = Multiple()
    return found


def lr_multipliers(network: Dynamics) -> dict[str, float]:
    """Learning rate of every parameter as a multiple of `optimizer.lr`."""
    return {name: multiple.rate for name, multiple in multiples(network).items()}
