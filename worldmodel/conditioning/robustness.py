"""Training on a disturbed context, for robustness to its own errors in long rollouts.

The network reads a changed context; the targets stay the recorded frames.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.conditioning.config import RobustnessConfig
from worldmodel.dynamics.base import Dynamics


class Robustness(RobustnessConfig):
    """Disturbances of the context in training; see `RobustnessConfig`."""

    def check(self, network: Dynamics) -> None:
        """BadInput unless the network supports it."""
        if self == Robustness():
            return
        missing = [name for name in ("context", "noise") if name not in network.reads]
        if missing:
            raise BadInput(
                f"model.robustness: {type(network).__name__} takes no {missing[0]} of its own; "
                "leave model.robustness at 0"
            )
        room = network.config.context_steps - network.first_target_step
        if self.self_fed_frames > room:
            raise BadInput(
                f"robustness.self_fed_frames={self.self_fed_frames}: only {room} frames of "
                f"{network.config.context_steps} are predicted; give {room} at most"
            )

    def change(
        self,
        network: Dynamics,
        tokens: Int[Tensor, "batch time height width"],
        *conditions: Any,
        **further: Any,
    ) -> dict[str, Tensor]:
        """The keyword arguments `context` and `noise` of the loss, if they are on.

        Args:
            conditions, further: the other arguments of the loss.
        """
        changed, context = {}, tokens
        if self.self_fed_frames:
            context = self._self_fed(network, tokens, *conditions, **further)
        if self.corrupt:
            context = self._corrupted(context, network.spec.vocab_size)
        if context is not tokens:
            changed["context"] = context
        if self.noise:
            changed["noise"] = self.noise * torch.rand(len(tokens), device=tokens.device)
        return changed

    def _corrupted(self, tokens: Tensor, vocab_size: int) -> Tensor:
        share = self.corrupt * torch.rand(len(tokens), 1, 1, 1, device=tokens.device)
        hit = torch.rand(tokens.shape, device=tokens.device) < share
        return torch.where(hit, torch.randint_like(tokens, vocab_size), tokens)

    @torch.no_grad()
    def _self_fed(
        self, network: Dynamics, tokens: Tensor, *conditions: Any, **further: Any
    ) -> Tensor:
        logits: Float[Tensor, "batch time space vocab"] = network(tokens, *conditions, **further)
        # Gumbel-max sampling; -log of exponential noise is Gumbel noise.
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_()
        samples = (logits.float() - noise.log()).argmax(-1).view_as(tokens)
        order = torch.rand(tokens.shape[:2], device=tokens.device)
        order[:, : network.first_target_step] = -1.0
        last = order.topk(min(self.self_fed_frames, tokens.shape[1]), dim=1).indices
        fed = torch.zeros_like(order, dtype=torch.bool).scatter(1, last, True) & (order >= 0)
        return torch.where(fed[:, :, None, None], samples, tokens)
