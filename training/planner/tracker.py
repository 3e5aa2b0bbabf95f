"""Tracks the lifetime of every tensor, for the peak memory by part.

The method of torch.distributed._tools' MemTracker, which allows neither a second step nor a
module that is called twice in one; and it counts nothing else.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

PARAMETERS, GRADIENTS, OPTIMIZER = "parameters", "gradients", "optimizer state"
AVERAGE, FIXED = "average of weights (EMA)", "fixed networks, buffers"
ACTIVATIONS, TEMPORARIES = "activations, logits, batch", "temporaries of backward"
PARTS = (PARAMETERS, GRADIENTS, OPTIMIZER, AVERAGE, FIXED, ACTIVATIONS, TEMPORARIES)


class PeakTracker(TorchDispatchMode):
    """Follows the storages of all tensors that operators return while it is on.

    A tensor made inside a backward pass or without gradients is a temporary, any other an
    activation, until `mark` says what it is.

    Attributes:
        peak: bytes by part at the peak.
        flops, ops: see `StepCost`; since `start`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[int, str, Any]] = {}
        self._now = dict.fromkeys(PARTS, 0)
        self._bytes = 0
        self.start()

    def start(self) -> None:
        """Reset the peak and the counts, not the live tensors."""
        self._most, self.flops, self.ops = -1, 0.0, 0
        self.peak: dict[str, int] = {}

    def own(self, module: nn.Module) -> None:
        """Register parameters and buffers of a module."""
        for tensor in all_tensors(module):
            self.mark(tensor, FIXED)
        for parameter in module.parameters():
            if parameter.requires_grad:
                self.mark(parameter, PARAMETERS)
        for child in module.modules():
            if isinstance(child, AveragedModel):
                for tensor in all_tensors(child):
                    self.mark(tensor, AVERAGE)

    def mark(self, tensor: Any, part: str) -> None:
        """Assign a tensor to a part; an unknown tensor is counted from now on."""
        if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            size, old, reference = self._live[key]
            self._now[old] -= size
        else:
            size = storage.nbytes()
            reference = weakref.ref(storage, lambda _: self._forget(key))
            self._bytes += size
        self._now[part] += size
        self._live[key] = (size, part, reference)

    def _forget(self, key: int) -> None:
        size, part, _ = self._live.pop(key)
        self._now[part] -= size
        self._bytes -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        backward = torch._C._current_graph_task_id() != -1
        part = TEMPORARIES if backward or not torch.is_grad_enabled() else ACTIVATIONS
        new = False
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._live:
                self.mark(tensor, part)
                new = True
        self.ops += new
        self.flops += flops_of(func, args, kwargs or {}, out)
        if self._bytes > self._most:
            self._most, self.peak = self._bytes, dict(self._now)
        return out


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> float:
    """FLOPs of one operator: matrix products, convolutions, attention; all others count 0."""
    aten, packet = torch.ops.aten, func._overloadpacket
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=out))
    # torch counts the attention kernels of GPUs, and forgets the CPU's.
    if packet == aten._scaled_dot_product_flash_attention_for_cpu:
        return float(sdpa_flop_count(*(x.shape for x in args[:3])))
    if packet == aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return float(sdpa_backward_flop_count(*(x.shape for x in args[:4])))
    return 0.0


def all_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, also of networks that a module keeps from its state dict."""
    yield from module.parameters()
    yield from module.buffers()
    for child in module.modules():
        for value in vars(child).values():
            for item in value if isinstance(value, tuple) else ():
                if isinstance(item, nn.Module):
                    yield from all_tensors(item)
