"""Which token stands where in the sequence that a world model reads.

A time step is a prefix and then the frame's tokens in raster order:

    [prefix_0, z_0 ..., prefix_1, z_1 ..., prefix_2, ...]

The prefix of step t carries `actions[:, t - 1]`, the action that explains frame t; step 0 has
no past and carries a learned start. The last slot of a prefix predicts the frame's first
token, so prefixes also separate frames: they are forced, never sampled and never a target.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenizer.token_store import TokenSpec
from training.errors import BadInput

ACTION_KINDS = ("none", "continuous", "binned")


@dataclass(frozen=True)
class LayoutConfig:
    """How actions enter the sequence.

    Attributes:
        actions: "none" (prefix = one separator), "continuous" (one slot that embeds
            symlog(actions)) or "binned" (one token per action column).
        num_bins: bins per column of "binned", uniform in symlog space.
        action_min, action_max: range of the bins in the actions' own units; values outside
            fall into the outermost bins.
        first_target_step: first time step whose tokens count in a loss or a score; frame 0
            has no past, so 1 leaves it out.
        separator: whether "none" has a prefix at all. Without it frames follow each other, the
            last token of a frame predicts the first of the next, and nothing predicts the very
            first, whose distribution then counts as uniform.
    """

    actions: str = "none"
    num_bins: int = 256
    action_min: float = -50.0
    action_max: float = 50.0
    first_target_step: int = 1
    separator: bool = True

    def __post_init__(self) -> None:
        if self.actions not in ACTION_KINDS:
            raise BadInput(f"layout.actions={self.actions!r}; choose one of {ACTION_KINDS}")
        if self.num_bins < 2:
            raise BadInput(f"layout.num_bins={self.num_bins}; give at least 2")
        if not self.action_min < self.action_max:
            raise BadInput(
                f"layout.action_min={self.action_min} is not below "
                f"action_max={self.action_max}; exchange them"
            )
        if self.first_target_step < 0:
            raise BadInput(f"layout.first_target_step={self.first_target_step}; give 0 or more")
        if not self.separator and (self.actions != "none" or self.first_target_step == 0):
            raise BadInput(
                "layout.separator=false leaves no place for actions and nothing before frame 0; "
                "set layout.actions=none and layout.first_target_step=1"
            )


class SequenceLayout:
    """Owns the ids, the slots and the targets of a sequence of time steps.

    Ids 0 .. vocab_size - 1 are the frame's tokens. After them come the ids of the prefix:
    "none" has one (the separator, if any), "continuous" two (start, no action), and "binned"
    has for every action column `num_bins` values, start, and no action. A tokenizer with
    T' > 1 tokens in time stacks them as further rows of its frame.

    Raises:
        BadInput: actions are asked for where the data has no action column.
    """

    def __init__(self, config: LayoutConfig, spec: TokenSpec, num_actions: int) -> None:
        if config.actions != "none" and num_actions < 1:
            raise BadInput(
                f"layout.actions={config.actions!r}, but the data has no action columns; "
                "set layout.actions=none or choose action columns"
            )
        self.config = config
        self.num_actions = num_actions
        self.height, self.width = spec.grid[0] * spec.grid[1], spec.grid[2]
        self.vocab_size = spec.vocab_size
        self.tokens_per_step = spec.tokens_per_step
        self.prefix_length = num_actions if config.actions == "binned" else int(config.separator)
        self.step_length = self.prefix_length + self.tokens_per_step
        prefix_ids = {
            "none": self.prefix_length,
            "continuous": 2,
            "binned": num_actions * (config.num_bins + 2),
        }
        bounds = (config.action_min, config.action_max)
        low, high = (math.copysign(math.log1p(abs(bound)), bound) for bound in bounds)
        self.symlog_range = (low, high)
        self.num_ids = self.vocab_size + prefix_ids[config.actions]

    def sequence_length(self, num_steps: int) -> int:
        """Slots of `num_steps` time steps."""
        return num_steps * self.step_length

    def positions(self, num_steps: int) -> Int[Tensor, "slot 3"]:
        """(time, row, column) of every slot; a prefix is row 0, and frames start below it."""
        top = min(self.prefix_length, 1)
        prefix = [(0, i) for i in range(self.prefix_length)]
        frame = [(top + r, c) for r in range(self.height) for c in range(self.width)]
        step = torch.tensor(prefix + frame)
        time = torch.arange(num_steps).repeat_interleave(self.step_length)
        return torch.cat([time[:, None], step.repeat(num_steps, 1)], dim=1)

    def predicting_slots(self, num_steps: int) -> Int[Tensor, "time space"]:
        """The slot whose output predicts each frame token: the one before the token's own.

        -1, which is no slot, for the very first token where there is no prefix.
        """
        starts = torch.arange(num_steps)[:, None] * self.step_length + self.prefix_length - 1
        return starts + torch.arange(self.tokens_per_step)

    def counted_steps(self, num_steps: int) -> Bool[Tensor, " time"]:
        """Which time steps' tokens count in a loss or a score (see `first_target_step`)."""
        return torch.arange(num_steps) >= self.config.first_target_step

    def sequence_ids(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "batch slot"]:
        """The ids of the whole sequence; "continuous" prefixes hold "no action" after step 0.

        Args:
            actions: row t explains frame t + 1; needs time - 1 rows, further rows are unused.
            drop_actions: examples that read the learned "no action" in place of every action.
        Raises:
            BadInput: the grid or the actions do not have this layout's shape.
        """
        self.check(tokens, actions)
        batch, time = tokens.shape[:2]
        if self.config.actions == "binned":
            assert actions is not None
            later = self.action_ids(actions[:, : time - 1], drop_actions)
        else:
            last = self.num_ids - 1  # the separator of "none", "no action" of "continuous"
            later = tokens.new_full((batch, time - 1, self.prefix_length), last)
        prefix = torch.cat([self.start_ids(batch, tokens), later.to(tokens.dtype)], dim=1)
        return torch.cat([prefix, tokens.flatten(2)], dim=2).flatten(1)

    def start_ids(self, batch: int, like: Tensor) -> Int[Tensor, "batch 1 prefix"]:
        """The prefix of step 0, on the device and of the type of `like`."""
        width = self.config.num_bins + 2 if self.config.actions == "binned" else 1
        offset = self.config.num_bins if self.config.actions == "binned" else 0
        columns = torch.arange(self.prefix_length, device=like.device, dtype=like.dtype)
        return (self.vocab_size + offset + width * columns).expand(batch, 1, -1)

    def action_ids(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "batch step action"]:
        """Ids of "binned" actions: bins uniform in symlog space, every column its own range."""
        config = self.config
        low, high = self.symlog_range
        scaled = (symlog(actions.float()) - low) / (high - low) * config.num_bins
        bins = scaled.clamp(0, config.num_bins - 1).long()
        if drop_actions is not None:
            bins = bins.masked_fill(drop_actions[:, None, None], config.num_bins + 1)
        columns = torch.arange(self.num_actions, device=actions.device)
        return self.vocab_size + (config.num_bins + 2) * columns + bins

    def check(self, tokens: Tensor, actions: Tensor | None) -> None:
        """BadInput unless tokens and actions have this layout's shapes."""
        grid = (self.height, self.width)
        if tokens.ndim != 4 or tuple(tokens.shape[2:]) != grid:
            raise BadInput(
                f"tokens of shape {tuple(tokens.shape)}, but the model reads [batch time "
                f"{grid[0]} {grid[1]}]; use the tokenizer that it was trained with"
            )
        if self.config.actions == "none":
            return
        if actions is None:
            raise BadInput(
                f"layout.actions={self.config.actions!r} needs actions; "
                "pass them, or zeros with drop_actions=True for every example"
            )
        batch, time = tokens.shape[:2]
        fits = actions.ndim == 3 and actions.shape[0] == batch and actions.shape[1] >= time - 1
        if not fits or actions.shape[2] != self.num_actions:
            raise BadInput(
                f"actions of shape {tuple(actions.shape)}, but {time} frames need "
                f"[{batch}, {time - 1} or more, {self.num_actions}]; choose the action columns "
                "that the model was trained with"
            )


def symlog(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x) log(1 + |x|): linear near 0, logarithmic far away (DreamerV3, equation 9)."""
    return x.sign() * x.abs().log1p()
