"""What every decoder does: read a prompt, then extend it frame by frame."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.sampling import Sampling
from worldmodel.dynamics.layout import SequenceLayout


class FrameDecoder(ABC):
    """A running set of futures, extended frame by frame; `rollout` is the short way."""

    @abstractmethod
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> None:
        """Read the prompt once and open `num_futures` rows per example, example-major.

        Raises:
            BadInput: the prompt is empty, longer than the context, or of another shape.
        """

    @abstractmethod
    def next_frame(
        self, action: Float[Tensor, "row action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Sample the frame that follows, given the action in force before it."""


class RowDecoder(FrameDecoder):
    """What decoders have in common that hold one row per future.

    Attributes:
        slide_steps: frames that leave a full context at once.
        tokens, actions, drop_actions: all frames so far and what was in force between them, by
            row; actions are None where the model reads none.
        generator: draws the numbers that decide tokens, on the CPU.

    Raises:
        BadInput: slide_steps not from 1 to context_steps - 1.
    """

    tokens: Int[Tensor, "row time height width"]
    actions: Float[Tensor, "row step action"] | None
    drop_actions: Bool[Tensor, " row"] | None

    def __init__(
        self,
        layout: SequenceLayout,
        context_steps: int,
        sampling: Sampling | None,
        slide_steps: int | None,
        own_choice: int | None = None,
    ) -> None:
        own_choice = own_choice or max(1, context_steps // 4)
        self.slide_steps = own_choice if slide_steps is None else slide_steps
        if not 1 <= self.slide_steps < context_steps:
            raise BadInput(
                f"slide_steps={slide_steps}; give 1 to {context_steps - 1} (context_steps - 1)"
            )
        self.layout, self.context_steps = layout, context_steps
        self.sampling = sampling or Sampling()
        self.generator = torch.Generator().manual_seed(self.sampling.seed)

    def check_prompt(self, time: int, num_futures: int) -> None:
        """BadInput unless a prompt of so many frames fits, and there are futures to open."""
        limit = self.context_steps
        if not 1 <= time <= limit:
            raise BadInput(f"a prompt of {time} frames; the model reads 1 to {limit}: shorten it")
        if num_futures < 1:
            raise BadInput(f"num_futures={num_futures}; give 1 or more")

    def hold(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
    ) -> None:
        """Begin with a prompt that has been checked; actions beyond it are left out."""
        self.tokens, self.actions, self.drop_actions = tokens, None, drop_actions
        if self.layout.config.actions != "none" and actions is not None:
            self.actions = actions[:, : tokens.shape[1] - 1]

    def repeat(self, num_futures: int) -> None:
        """Every row as often as it has futures, example-major."""
        self.tokens = self.tokens.repeat_interleave(num_futures, dim=0)
        if self.actions is not None:
            self.actions = self.actions.repeat_interleave(num_futures, dim=0)
        if self.drop_actions is not None:
            self.drop_actions = self.drop_actions.repeat_interleave(num_futures, dim=0)

    def check_action(self, action: Float[Tensor, "row action"] | None) -> None:
        """BadInput where the model reads actions and this is not one for every row."""
        needed = (len(self.tokens), self.layout.num_actions)
        given = None if action is None else tuple(action.shape)
        if self.actions is not None and given != needed:
            raise BadInput(f"next_frame needs actions {list(needed)}, got {given}")

    def join(self, action: Float[Tensor, "row action"] | None) -> None:
        """Note the action that leads to the next frame; not read where the model reads none."""
        if self.actions is not None and action is not None:
            self.actions = torch.cat([self.actions, action[:, None]], dim=1)
