"""Muon for the matrices and kernels of the blocks, AdamW for everything else, as one optimizer.

Muon (Jordan 2024, kellerjordan.github.io/posts/muon) steps along the orthogonalised momentum of a
matrix. The size of its steps is 0.2 times the rate, about that of AdamW (Liu et al. 2025, arXiv
2502.16982, section 2.2).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

MOMENTUM = "momentum_buffer"


class KernelMuon(Muon):
    """torch.optim.Muon for kernels of convolutions too: matrices with a row per output channel.

    torch's refuses them when it is built; so it is built with a matrix, and given these.
    """

    def __init__(self, params: Iterable[nn.Parameter], **settings: Any) -> None:
        super().__init__([nn.Parameter(torch.zeros(1, 1))], **settings)
        self.param_groups[0]["params"] = list(params)

    def _init_group(
        self, group: Any, params: list[Tensor], grads: list[Tensor], buffers: list[Tensor]
    ) -> bool:
        for p in group["params"]:
            if p.grad is not None:
                params.append(p.view(len(p), -1))  # a view: the step moves the kernel itself
                grads.append(p.grad.flatten(1))
                buffers.append(self.state[p][MOMENTUM].view(len(p), -1))
        return False


class MuonWithAdamW(Optimizer):
    """Steps two optimizers as one: one list of groups, one state dict, one refusal.

    torch.optim.Muon has no `found_inf`. What it changes is copied before a step and selected after
    it, on the device, so that a refused step changes nothing and the host does not wait.

    Attributes:
        found_inf: 1 where the next step is refused, as torch's GradScaler sets it; None: never.
    """

    found_inf: Tensor | None = None

    def __init__(self, adamw: AdamW, muon: Muon) -> None:
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
