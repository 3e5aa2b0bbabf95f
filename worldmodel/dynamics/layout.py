"""The order of tokens in the sequence of a world model.

A time step is a prefix, followed by the tokens of its frame in raster order:

    [prefix_0, z_0 ..., prefix_1, z_1 ..., prefix_2, ...]

The prefix of step t carries `actions[:, t - 1]`, the action that leads to frame t. Time
step 0 has no past; its prefix is a learned start. The last position of a prefix predicts the first
token of the frame, so prefixes also separate frames. They are given, never sampled and never a
target. With text, a prefix is the caption of its frame and then the action (GAIA-1, arXiv
2309.17080, section 2, has text, image, action: there the action comes before the next caption).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig


class SequenceLayout:
    """Ids, positions and targets of a sequence of time steps.

    Ids 0 .. vocab_size - 1 are frame tokens. The prefix ids follow. "none" has one (the
    separator, if any). "continuous" has two (start, no action). "binned" has `num_bins` values,
    start and no action for every action column. With text, the last id means no caption. A
    tokenizer with T' > 1 tokens in time stacks them as further rows of its frame.

    Raises:
        BadInput: actions without an action column in the data, or text without an encoder.
    """

    def __init__(self, config: LayoutConfig, spec: TokenSpec, num_actions: int) -> None:
        if config.actions != "none" and num_actions < 1:
            raise BadInput(
                f"layout.actions={config.actions!r}, but the data has no action columns; "
                "set layout.actions=none or choose action columns"
            )
        if config.text_tokens and not config.text_width:
            raise BadInput(
                f"layout.text_tokens={config.text_tokens} needs a text encoder; give model.text, "
                "or set layout.text_tokens=0"
            )
        self.config = config
        self.num_actions = num_actions
        self.height, self.width = spec.grid[0] * spec.grid[1], spec.grid[2]
        self.vocab_size = spec.vocab_size
        self.tokens_per_step = spec.tokens_per_step
        self.num_action_positions = (
            num_actions if config.actions == "binned" else int(config.separator)
        )
        self.prefix_length = config.text_tokens + self.num_action_positions
        self.step_length = self.prefix_length + self.tokens_per_step
        prefix_ids = {
            "none": self.num_action_positions,
            "continuous": 2,
            "binned": num_actions * (config.num_bins + 2),
        }
        bounds = config.ranges(num_actions) if config.actions == "binned" else ((), ())
        self.low, self.high = (symlog(torch.tensor(b, dtype=torch.float64)) for b in bounds)
        self._bounds: dict[torch.device, list[Tensor]] = {}
        self.no_text_id = self.vocab_size + prefix_ids[config.actions]
        self.no_action_id = self.no_text_id - 1  # "none": the separator
        self.lead_length = int(config.start_token)  # positions before time step 0
        self.start_id = self.no_text_id + (config.text_tokens > 0)
        self.num_ids = self.start_id + self.lead_length

    def sequence_length(self, num_steps: int) -> int:
        """Number of positions of the first `num_steps` time steps."""
        return self.lead_length + num_steps * self.step_length

    @property
    def predicts_first(self) -> bool:
        """Whether a position precedes the very first frame token."""
        return self.lead_length + self.prefix_length > 0

    def coordinates(self, num_steps: int) -> Int[Tensor, "position 3"]:
        """(time, row, column) of every position; a prefix is row 0, its frame starts below.

        A start token has the coordinates of the first token.
        """
        top = min(self.prefix_length, 1)
        prefix = [(0, i) for i in range(self.prefix_length)]
        frame = [(top + r, c) for r in range(self.height) for c in range(self.width)]
        step = torch.tensor(prefix + frame)
        time = torch.arange(num_steps).repeat_interleave(self.step_length)
        steps = torch.cat([time[:, None], step.repeat(num_steps, 1)], dim=1)
        return torch.cat([steps.new_zeros(self.lead_length, 3), steps])

    def predicting_positions(
        self, num_steps: int, device: torch.device | None = None
    ) -> Int[Tensor, "time space"]:
        """The position that predicts each frame token: the one before it.

        -1 for the very first token if nothing precedes it.
        """
        before = self.lead_length + self.prefix_length - 1
        starts = torch.arange(num_steps, device=device)[:, None] * self.step_length + before
        return starts + torch.arange(self.tokens_per_step, device=device)

    def counted_steps(self, num_steps: int) -> Bool[Tensor, " time"]:
        """Time steps whose tokens count in a loss or a score (see `first_target_step`)."""
        return torch.arange(num_steps) >= self.config.first_target_step

    def sequence_ids(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "batch position"]:
        """Ids of the whole sequence, without captions.

        "continuous" prefixes hold "no action" after time step 0.

        Args:
            actions: row t leads to frame t + 1; at least time - 1 rows, further rows are unused.
            drop_actions: examples that read the learned "no action" instead of their actions.
        Raises:
            BadInput: tokens or actions have another shape.
        """
        self.check(tokens, actions)
        batch, time = tokens.shape[:2]
        if self.config.actions == "binned":
            assert actions is not None
            later = self.action_ids(actions[:, : time - 1], drop_actions)
        else:
            later = tokens.new_full((batch, time - 1, self.num_action_positions), self.no_action_id)
        prefix = torch.cat([self.start_ids(batch, tokens), later.to(tokens.dtype)], dim=1)
        text = tokens.new_full((batch, time, self.config.text_tokens), self.no_text_id)
        steps = torch.cat([text, prefix, tokens.flatten(2)], dim=2).flatten(1)
        return torch.cat([steps.new_full((batch, self.lead_length), self.start_id), steps], dim=1)

    def start_ids(self, batch: int, like: Tensor) -> Int[Tensor, "batch 1 position"]:
        """Action ids of time step 0, with device and dtype of `like`."""
        width = self.config.num_bins + 2 if self.config.actions == "binned" else 1
        offset = self.config.num_bins if self.config.actions == "binned" else 0
        columns = torch.arange(self.num_action_positions, device=like.device, dtype=like.dtype)
        return (self.vocab_size + offset + width * columns).expand(batch, 1, -1)

    def action_ids(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "batch step action"]:
        """Ids of "binned" actions: uniform bins in symlog space, a range per column."""
        bins = self.action_bins(actions)
        if drop_actions is not None:
            bins = bins.masked_fill(drop_actions[:, None, None], self.config.num_bins + 1)
        return self.bin_ids(bins)

    def action_bins(
        self, actions: Float[Tensor, "batch step action"]
    ) -> Int[Tensor, "batch step action"]:
        """The bin of every action."""
        low, high = self._bounds_on(actions.device)
        scaled = (symlog(actions.float()) - low) / (high - low) * self.config.num_bins
        return scaled.clamp(0, self.config.num_bins - 1).long()

    def _bounds_on(self, device: torch.device) -> list[Tensor]:
        """The ends of the bins, copied to a device once: a copy waits for all its work."""
        if device not in self._bounds:
            ends = (self.low, self.high)
            self._bounds[device] = [end.to(device, torch.float32) for end in ends]
        return self._bounds[device]

    def bin_ids(self, bins: Int[Tensor, "*shape action"]) -> Int[Tensor, "*shape action"]:
        """Ids of bins; every column has its own id range."""
        columns = torch.arange(self.num_actions, device=bins.device)
        return self.vocab_size + (self.config.num_bins + 2) * columns + bins

    def bin_actions(self, bins: Int[Tensor, "*shape action"]) -> Float[Tensor, "*shape action"]:
        """Actions at the centre of their bins."""
        low, high = self._bounds_on(bins.device)
        scaled = low + (bins + 0.5) / self.config.num_bins * (high - low)
        return scaled.sign() * scaled.abs().expm1()

    def action_predicting_positions(
        self, num_steps: int, device: torch.device | None = None
    ) -> Int[Tensor, "step action"]:
        """The positions that predict the actions of time steps 1 .. num_steps - 1."""
        starts = torch.arange(1, num_steps, device=device)[:, None] * self.step_length
        columns = torch.arange(self.num_actions, device=device)
        return starts + self.config.text_tokens - 1 + columns

    def check(self, tokens: Tensor, actions: Tensor | None) -> None:
        """BadInput unless tokens and actions have the right shapes."""
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
