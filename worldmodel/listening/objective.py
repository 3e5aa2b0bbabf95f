"""The training loss of a world model, with the terms that make it listen to actions."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from training.errors import BadInput
from worldmodel.dynamics.actions.config import ActionMoments
from worldmodel.dynamics.base import Dynamics
from worldmodel.listening.action_reader import ActionReader
from worldmodel.listening.cells import cell_weights
from worldmodel.listening.config import ListeningConfig
from worldmodel.listening.contrast import contrast, rivals, with_rows


class Objective(nn.Module):
    """The loss of a network, and further terms; without them it is `Dynamics.loss` to the bit.

    Args:
        moments: mean and deviation of every action column; None: 0 and 1.

    Raises:
        BadInput: terms for a network that reads no actions, or that does not support them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: ListeningConfig, network: Dynamics, moments: ActionMoments | None
    ) -> None:
        super().__init__()
        self.config, self.head = config, None
        if not config.on:
            return
        if not network.conditioned or "reduce" not in network.reads or network.predicts_actions:
            raise BadInput(
                f"model.listening: this {type(network).__name__} reads no actions, predicts them, "
                "or has no likelihood of every token; set its weights to 0"
            )
        count = network.num_actions
        mean, std = moments or ((0.0,) * count, (1.0,) * count)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        if config.inverse_dynamics:
            grid = (network.layout.height, network.layout.width)
            self.head = ActionReader(network.spec.vocab_size, grid, count)

    def forward(
        self,
        network: Dynamics,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"],
        **further: Any,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss and, with terms, its parts by name; "nats" is the plain cross entropy.

        Args:
            further: as those of the network's `loss`.
        """
        if not self.config.on:
            return network.loss(tokens, actions, drop_actions, **further), {}
        config, batch, first = self.config, len(tokens), network.first_target_step
        scaled = (actions[:, : tokens.shape[1] - 1] - self.mean) / self.std
        others, parts = None, {}
        read = (tokens, actions, drop_actions)
        if config.contrast:
            chances = config.contrast_share, config.contrast_distance
            others = rivals(scaled, actions, drop_actions, *chances)
            rows = others.rows
            read = (
                with_rows(tokens, rows),
                torch.cat([actions, others.actions]),
                with_rows(drop_actions, rows),
            )
            further = {name: with_rows(value, rows) for name, value in further.items()}

        def reduce(nats: Tensor, logits: Callable[[], Tensor]) -> Tensor:
            own = nats[:batch]
            parts["nats"] = own.mean().detach()
            loss = own.mean()
            if config.cell_weight:
                loss = (own * cell_weights(tokens, config.cell_weight, first)).mean()
            if others is not None:
                true, other = own[others.rows].mean((1, 2)), nats[batch:].mean((1, 2))
                term = contrast(true, other, others.counts, config.contrast_margin)
                loss, parts["contrast"] = loss + config.contrast * term, term.detach()
            if self.head is not None:
                steps = min(nats.shape[1], scaled.shape[1])  # step 0 has no action
                learning, judged = self.head.errors(
                    tokens.flatten(2), logits()[:batch, -steps:], scaled[:, -steps:], drop_actions
                )
                loss = loss + config.inverse_dynamics * (learning + judged)
                parts["inverse_dynamics"] = judged.detach()
                parts["inverse_dynamics_real"] = learning.detach()
            return loss

        return network.loss(*read, **{**further, "reduce": reduce}), parts


class TrainedTogether(nn.Module):
    """A network and the parameters of its objective, for one optimizer."""

    def __init__(self, network: Dynamics, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def lr_multipliers(self) -> dict[str, float]:
        """Learning rates of the network's parameters as multiples of `optimizer.lr`."""
        own: dict[str, float] = getattr(self.network, "lr_multipliers", dict)()
        return {f"network.{name}": rate for name, rate in own.items()}
