"""Which token stands where in the sequence that a world model reads.

A time step is a prefix and then the frame's tokens in raster order:

    [prefix_0, z_0 ..., prefix_1, z_1 ..., prefix_2, ...]

The prefix of step t carries `actions[:, t - 1]`, the action that explains frame t; step 0 has
no past and carries a learned start. The last slot of a prefix predicts the frame's first
token, so prefixes also separate frames: they are forced, never sampled and never a target.
With text, a prefix begins with what is said of its frame, and the action comes after (GAIA-1,
arXiv 2309.17080, section 2: text, image, action; the action that explains the next frame
then stands behind that frame's text instead of before it).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput

ACTION_KINDS = ("none", "continuous", "binned")
ActionRanges = tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest of every column


@dataclass(frozen=True)
class LayoutConfig:
    """How actions enter the sequence.

    Attributes:
        actions: "none" (prefix = one separator), "continuous" (one slot that embeds
            symlog(actions)) or "binned" (one token per action column).
        num_bins: bins per column of "binned", uniform in symlog space.
        action_min, action_max: range of the bins in the actions' own units, one for all
            columns or one each; values outside fall into the outermost bins. None is filled in
            from the drives that the world model is trained on, column by column.
        predict_actions: weight of the cross entropy of "binned" actions in the loss, which are
            then predicted like tokens and can be left to the model when decoding; 0: they are
            only read (GAIA-1 counts image tokens alone).
        first_target_step: first time step whose tokens count in a loss or a score; frame 0
            has no past, so 1 leaves it out.
        separator: whether "none" has a prefix at all. Without it frames follow each other, the
            last token of a frame predicts the first of the next, and nothing predicts the very
            first, whose distribution then counts as uniform.
        start_token: whether one more slot, with an id of its own, stands before the first frame and
            predicts its first token, where there is no separator (Cosmos: <bov>).
        text_tokens: slots of every prefix that hold the caption's embedding (GAIA-1: 32); 0
            for no text.
        text_width: numbers per token of the text encoder; 0 is filled in from the encoder that
            the world model is trained with.
    """

    actions: str = "none"
    num_bins: int = 256
    action_min: float | tuple[float, ...] | None = -50.0
    action_max: float | tuple[float, ...] | None = 50.0
    first_target_step: int = 1
    separator: bool = True
    text_tokens: int = 0
    text_width: int = 0
    predict_actions: float = 0.0
    start_token: bool = False

    def __post_init__(self) -> None:
        if self.actions not in ACTION_KINDS:
            raise BadInput(f"layout.actions={self.actions!r}; choose one of {ACTION_KINDS}")
        if self.num_bins < 2:
            raise BadInput(f"layout.num_bins={self.num_bins}; give at least 2")
        for name in ("action_min", "action_max"):  # JSON and YAML have lists
            if not isinstance(getattr(self, name), int | float | None):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.ranged:
            lows, highs = self.ranges(max(_count(self.action_min), _count(self.action_max)))
            if not all(low < high for low, high in zip(lows, highs, strict=True)):
                raise BadInput(
                    f"layout.action_min={self.action_min} is not below "
                    f"action_max={self.action_max}; exchange them"
                )
        if self.predict_actions < 0 or (self.predict_actions and self.actions != "binned"):
            raise BadInput(
                f"layout.predict_actions={self.predict_actions} with actions={self.actions!r}; "
                "give 0 or more, and actions=binned to predict them"
            )
        if self.first_target_step < 0:
            raise BadInput(f"layout.first_target_step={self.first_target_step}; give 0 or more")
        needed = self.actions != "none" or self.text_tokens or self.first_target_step == 0
        if self.start_token and self.separator:
            raise BadInput(
                "layout.start_token=true: a separator stands before every frame already; set "
                "layout.separator=false"
            )
        if not self.separator and needed:
            raise BadInput(
                "layout.separator=false leaves no place for actions or text and nothing before "
                "frame 0; set layout.actions=none, text_tokens=0 and first_target_step=1"
            )
        if self.text_tokens < 0 or self.text_width < 0:
            raise BadInput(
                f"layout.text_tokens={self.text_tokens}, text_width={self.text_width}; "
                "give 0 (no text) or more"
            )

    def with_text(self, width: int) -> "LayoutConfig":
        """The same for a text encoder of this width; BadInput where it reads none."""
        if not self.text_tokens or self.text_width not in (0, width):
            raise BadInput(
                f"layout.text_tokens={self.text_tokens}, text_width={self.text_width} with a text "
                f"encoder of width {width}; set text_tokens=32 and text_width=0, or model.text=null"
            )
        return replace(self, text_width=width)

    def without_actions(self) -> "LayoutConfig":
        """The same, with a separator in place of the actions, which nobody predicts then."""
        return replace(self, actions="none", predict_actions=0.0)

    @property
    def ranged(self) -> bool:
        """Whether both ends of the bins are known; else they are filled in from the data."""
        return self.action_min is not None and self.action_max is not None

    def within(self, ranges: ActionRanges) -> "LayoutConfig":
        """The same, its bins in these ranges where none are given."""
        if self.actions != "binned":
            return self
        low, high = (
            found if given is None else given
            for given, found in zip((self.action_min, self.action_max), ranges, strict=True)
        )
        return replace(self, action_min=low, action_max=high)

    def ranges(self, num_actions: int) -> ActionRanges:
        """Lowest and highest action of every column; BadInput where there are not as many."""
        if self.action_min is None or self.action_max is None:
            raise BadInput(
                f"layout.action_min={self.action_min}, action_max={self.action_max}: training "
                "takes them from its drives, elsewhere give numbers"
            )
        lows, highs = (
            values if isinstance(values, tuple) else (values,) * num_actions
            for values in (self.action_min, self.action_max)
        )
        if {len(lows), len(highs)} != {num_actions}:
            raise BadInput(
                f"layout.action_min={self.action_min}, action_max={self.action_max} for "
                f"{num_actions} action columns; give one number, or one for each column"
            )
        return lows, highs


def _count(values: float | tuple[float, ...] | None) -> int:
    return len(values) if isinstance(values, tuple) else 1


class SequenceLayout:
    """Owns the ids, the slots and the targets of a sequence of time steps.

    Ids 0 .. vocab_size - 1 are the frame's tokens. After them come the ids of the prefix:
    "none" has one (the separator, if any), "continuous" two (start, no action), and "binned" has
    for every action column `num_bins` values, start, and no action. With text, the last id
    says that nothing is said. A tokenizer with T' > 1 tokens in time stacks them as further
    rows of its frame.

    Raises:
        BadInput: actions are asked for where the data has no action column, or text without an
            encoder.
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
        self.action_slots = num_actions if config.actions == "binned" else int(config.separator)
        self.prefix_length = config.text_tokens + self.action_slots
        self.step_length = self.prefix_length + self.tokens_per_step
        prefix_ids = {
            "none": self.action_slots,
            "continuous": 2,
            "binned": num_actions * (config.num_bins + 2),
        }
        bounds = config.ranges(num_actions) if config.actions == "binned" else ((), ())
        self.low, self.high = (symlog(torch.tensor(b, dtype=torch.float64)) for b in bounds)
        self.no_text_id = self.vocab_size + prefix_ids[config.actions]
        self.no_action_id = self.no_text_id - 1  # the separator of "none"
        self.lead_length = int(config.start_token)  # slots before the first step
        self.start_id = self.no_text_id + (config.text_tokens > 0)
        self.num_ids = self.start_id + self.lead_length

    def sequence_length(self, num_steps: int) -> int:
        """Slots of `num_steps` time steps, from the first of a sequence on."""
        return self.lead_length + num_steps * self.step_length

    @property
    def predicts_first(self) -> bool:
        """Whether any slot stands before the very first token."""
        return self.lead_length + self.prefix_length > 0

    def positions(self, num_steps: int) -> Int[Tensor, "slot 3"]:
        """(time, row, column) of every slot; a prefix is row 0, and frames start below it.

        A start token stands where the first token does.
        """
        top = min(self.prefix_length, 1)
        prefix = [(0, i) for i in range(self.prefix_length)]
        frame = [(top + r, c) for r in range(self.height) for c in range(self.width)]
        step = torch.tensor(prefix + frame)
        time = torch.arange(num_steps).repeat_interleave(self.step_length)
        steps = torch.cat([time[:, None], step.repeat(num_steps, 1)], dim=1)
        return torch.cat([steps.new_zeros(self.lead_length, 3), steps])

    def predicting_slots(self, num_steps: int) -> Int[Tensor, "time space"]:
        """The slot whose output predicts each frame token: the one before the token's own.

        -1, which is no slot, for the very first token where nothing stands before it.
        """
        before = self.lead_length + self.prefix_length - 1
        starts = torch.arange(num_steps)[:, None] * self.step_length + before
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
        """The ids of the whole sequence, in which nothing is said.

        "continuous" prefixes hold "no action" after step 0.

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
            later = tokens.new_full((batch, time - 1, self.action_slots), self.no_action_id)
        prefix = torch.cat([self.start_ids(batch, tokens), later.to(tokens.dtype)], dim=1)
        said = tokens.new_full((batch, time, self.config.text_tokens), self.no_text_id)
        steps = torch.cat([said, prefix, tokens.flatten(2)], dim=2).flatten(1)
        return torch.cat([steps.new_full((batch, self.lead_length), self.start_id), steps], dim=1)

    def start_ids(self, batch: int, like: Tensor) -> Int[Tensor, "batch 1 slot"]:
        """The action slots of step 0, on the device and of the type of `like`."""
        width = self.config.num_bins + 2 if self.config.actions == "binned" else 1
        offset = self.config.num_bins if self.config.actions == "binned" else 0
        columns = torch.arange(self.action_slots, device=like.device, dtype=like.dtype)
        return (self.vocab_size + offset + width * columns).expand(batch, 1, -1)

    def action_ids(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "batch step action"]:
        """Ids of "binned" actions: bins uniform in symlog space, every column its own range."""
        bins = self.action_bins(actions)
        if drop_actions is not None:
            bins = bins.masked_fill(drop_actions[:, None, None], self.config.num_bins + 1)
        return self.bin_ids(bins)

    def action_bins(
        self, actions: Float[Tensor, "batch step action"]
    ) -> Int[Tensor, "batch step action"]:
        """The bin of every action."""
        low, high = (bound.to(actions.device, torch.float32) for bound in (self.low, self.high))
        scaled = (symlog(actions.float()) - low) / (high - low) * self.config.num_bins
        return scaled.clamp(0, self.config.num_bins - 1).long()

    def bin_ids(self, bins: Int[Tensor, "*shape action"]) -> Int[Tensor, "*shape action"]:
        """Ids of bins, every column in a range of its own."""
        columns = torch.arange(self.num_actions, device=bins.device)
        return self.vocab_size + (self.config.num_bins + 2) * columns + bins

    def bin_actions(self, bins: Int[Tensor, "*shape action"]) -> Float[Tensor, "*shape action"]:
        """Actions in the middle of their bins."""
        low, high = (bound.to(bins.device, torch.float32) for bound in (self.low, self.high))
        scaled = low + (bins + 0.5) / self.config.num_bins * (high - low)
        return scaled.sign() * scaled.abs().expm1()

    def action_predicting_slots(self, num_steps: int) -> Int[Tensor, "step action"]:
        """The slots whose outputs predict the actions of time steps 1 .. num_steps - 1."""
        starts = torch.arange(1, num_steps)[:, None] * self.step_length
        return starts + self.config.text_tokens - 1 + torch.arange(self.num_actions)

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
