"""Fixed networks inside losses: never trained, averaged or saved."""

from collections.abc import Callable

from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds a fixed network; gradients pass through it to the input.

    A parent module moves it between devices and dtypes, but does not see its weights: they are
    in no checkpoint, optimizer or DDP broadcast, and `train()` does not enable its dropout.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # The tuple keeps torch from registering it; a parent reaches it only through `_apply`.
        self._unregistered = (network.eval().requires_grad_(False),)

    @property
    def network(self) -> nn.Module:
        return self._unregistered[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        # Trap: `to_empty` on a parent applies `empty_like`. Only the device and dtype of fn's
        # result are used, not its values.
        probe = fn(next(self.network.parameters()).new_empty(0))
        self.network.to(probe.device, probe.dtype)
        super()._apply(fn, recurse)
        return self
