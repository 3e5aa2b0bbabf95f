"""Muon for the matrices and kernels of the blocks, AdamW for everything else, as one optimizer.

Muon (Jordan 2024, kellerjordan.github.io/posts/muon) steps along the orthogonalised momentum of a
matrix. The size of its steps is 0.2 times the rate, about that of AdamW (Liu et al. 2025, arXiv
2502.16982, section 2.2).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training.machine import cpu_computes_in_bf16

MOMENTUM = "momentum_buffer"
QUINTIC = (3.4445, -4.775, 2.0315)  # of Jordan 2024


class KernelMuon(Optimizer):
    """Muon for matrices, and for kernels as matrices with a row per output channel.

    torch.optim.Muon does the same for matrices alone, and always multiplies in bfloat16: a CPU
    without units for it takes many times as long as in float32, longer than the rest of a step.

    Args:
        params: matrices, or kernels of convolutions.
        lr: the rate; a step has 0.2 times this root mean square.
        weight_decay: decoupled, times the rate.
        momentum: of Nesterov's kind.
        ns_steps: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        ns_steps: int,
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "momentum": momentum, "ns_steps": ns_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is None, "MuonWithAdamW computes the loss"
        for group in self.param_groups:
            rate, momentum = float(group["lr"]), group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                buffer = self.state[parameter][MOMENTUM]
                buffer.lerp_(parameter.grad, 1 - momentum)
                matrix = parameter.grad.lerp(buffer, momentum).flatten(1)
                update = orthogonalised(matrix, group["ns_steps"], product_dtype(matrix.device))
                parameter.mul_(1 - rate * group["weight_decay"])
                scale = 0.2 * math.sqrt(max(matrix.shape))
                parameter.add_(update.reshape(parameter.shape), alpha=-rate * scale)


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, or float32 on a CPU that multiplies bfloat16 slower."""
    slow = device.type == "cpu" and not cpu_computes_in_bf16()
    return torch.float32 if slow else torch.bfloat16


def orthogonalised(matrix: Tensor, num_steps: int, dtype: torch.dtype) -> Tensor:
    """U V^T of the matrix U S V^T, nearly: singular values end between 0.7 and 1.2.

    Jordan 2024: iterations of a quintic polynomial, steep at zero.

    Args:
        matrix: [rows columns].
        num_steps: iterations; 5 are usual.
        dtype: of the products and of the result.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(num_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class MuonWithAdamW(Optimizer):
    """Steps two optimizers as one: one list of groups, one state dict, one refusal.

    Muon has no `found_inf` of its own. What it changes is copied before a step and selected after
    it, on the device, so that a refused step changes nothing and the host does not wait.

    Attributes:
        found_inf: 1 where the next step is refused, as torch's GradScaler sets it; None: never.
    """

    found_inf: Tensor | None = None

    def __init__(self, adamw: AdamW, muon: KernelMuon) -> None:
        self.adamw, self.muon = adamw, muon
        super().__init__([*adamw.param_groups, *muon.param_groups], {"fused": True})
        self._share()

    def _share(self) -> None:
        """Let both step our groups with our state."""
        of_muon = {id(p) for group in self.muon.param_groups for p in group["params"]}
        for part, wanted in ((self.adamw, False), (self.muon, True)):
            part.state = self.state
            part.param_groups = [
                group
                for group in self.param_groups
                if (id(group["params"][0]) in of_muon) == wanted
            ]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.adamw.grad_scale, self.adamw.found_inf = None, self.found_inf  # type: ignore[attr-defined]
        self.adamw.step()
        moved = [p for g in self.muon.param_groups for p in g["params"] if p.grad is not None]
        for p in moved:
            self.state[p].setdefault(MOMENTUM, torch.zeros_like(p))
        changed = [*moved, *(self.state[p][MOMENTUM] for p in moved)]
        before = None if self.found_inf is None else [tensor.clone() for tensor in changed]
        self.muon.step()
        if before is not None:
            assert self.found_inf is not None
            for now, then in zip(changed, before, strict=True):
                torch.where(self.found_inf > 0, then, now, out=now)
        return loss
