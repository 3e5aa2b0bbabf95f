"""Width transfer (muP): a learning rate found on a narrow network serves a wide one.

Yang et al. 2022 (arXiv 2203.03466), table 8 with Adam, told as multiples of the network at
`mup_base_width`, for which nothing changes. r = mup_base_width / dim:

| parameter                                          | init std | learning rate | output |
|----------------------------------------------------|----------|---------------|--------|
| hidden: both sides grow with the width             | sqrt(r)  | r             |        |
| ids, positions, first layer of actions; 1-D        | 1        | 1             |        |
| head, tied or not                                  | 1        | 1             | r      |

`look_back` starts at 1 / sqrt(inputs) anyway. Attention keeps 1 / sqrt(head_dim), so widen by
more heads of the same size. Weight decay is divided by what the learning rate is multiplied by:
AdamW decays by their product, which then is the same at every width. Not transferred: depth,
batch size, the number of steps.
"""

from collections.abc import Iterable

from torch import Tensor

HIDDEN = ("blocks.", "look_back.", "action.2.")


def width_ratio(base_width: int, dim: int) -> float:
    """r of the table above; 1 where transfer is off."""
    return base_width / dim if base_width else 1.0


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether both sides of a parameter of the GPT grow with its width."""
    return parameter.ndim >= 2 and any(part in name for part in HIDDEN)


def lr_multipliers(parameters: Iterable[tuple[str, Tensor]], ratio: float) -> dict[str, float]:
    """Learning rate of every parameter as a multiple of `optimizer.lr`."""
    return {name: ratio if is_hidden(name, p) else 1.0 for name, p in parameters}
