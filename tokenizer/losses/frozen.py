"""Networks that losses look through, and that nothing may train, average or save."""

from collections.abc import Callable

from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds a network that gradients pass through and nothing reaches.

    A parent module moves it between devices and dtypes, and otherwise does not know it has
    weights: they are in no checkpoint, no optimizer, no DDP broadcast, and `train()` does not
    turn on a Dropout in it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a tuple torch does not register it; `_apply` below is all that a parent may do.
        self._unregistered = (network.eval().requires_grad_(False),)

    @property
    def network(self) -> nn.Module:
        return self._unregistered[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        # Trap: `to_empty` on a parent applies `empty_like`. Where fn would put a tensor is
        # followed, what it does to the values is not.
        probe = fn(next(self.network.parameters()).new_empty(0))
        self.network.to(probe.device, probe.dtype)
        super()._apply(fn, recurse)
        return self
