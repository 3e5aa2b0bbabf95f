"""An agent that plans anew at every step: model predictive control in dreams."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.proposals import RecordedActions
from worldmodel.planning.search import best_actions
from worldmodel.planning.values import ActionValues


class PlanningAgent:
    """Keeps what it saw and did; plans, acts by the first action, and plans again.

    Args:
        values: of any world model.
        proposals: candidates of the first round, given the newest row of actions.
    """

    def __init__(
        self, values: ActionValues, proposals: RecordedActions, config: PlanningConfig
    ) -> None:
        self.values, self.proposals, self.config = values, proposals, config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.tokens: list[Int[Tensor, "height width"]] = []
        self.actions: list[Float[Tensor, " action"]] = []

    def see(
        self,
        tokens: Int[Tensor, "height width"],
        action: Float[Tensor, " action"] | None = None,
    ) -> None:
        """Keep a new frame, and the row of actions that led to it; none before the first."""
        most = max(2, self.values.most_frames)  # a plan begins with the row between two frames
        self.tokens = [*self.tokens, tokens][-most:]
        if action is not None:
            self.actions = [*self.actions, action][-most:]

    @property
    def is_ready(self) -> bool:
        """Whether enough frames were seen to plan."""
        return len(self.tokens) >= max(2, self.values.fewest_frames)

    def act(self) -> Float[Tensor, " action"]:
        """The next action; BadInput before enough frames were seen."""
        if not self.is_ready or len(self.actions) < len(self.tokens) - 1:
            raise BadInput(
                f"planning: {len(self.tokens)} frames and {len(self.actions)} rows of actions were "
                f"seen; show {max(2, self.values.fewest_frames)} frames first"
            )
        frames = torch.stack(self.tokens[-self.values.most_frames :])
        rows = torch.stack(self.actions)[len(self.actions) - len(frames) + 1 :]
        seed = int(torch.randint(2**31, (), generator=self.generator))
        first = self.proposals(self.actions[-1], self.config.num_candidates, self.generator)
        plan = best_actions(
            lambda candidates: self.values(frames, rows, candidates, seed),
            first,
            self.config,
            self.generator,
        )
        return plan[0]
