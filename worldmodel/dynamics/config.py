"""Settings of every kind of world model; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from training.errors import BadInput
from training.ranges import at_least, multiple_of, one_of
from worldmodel.dynamics.actions.config import UNREAD, ActionMoments, ReadActionsConfig

ActionRanges = tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest of every column


ACTION_KINDS = ("none", "continuous", "binned")


@dataclass(frozen=True)
class LayoutConfig(ReadActionsConfig):
    """Layout of the sequence: prefixes with actions and captions, then the tokens of a frame.

    Attributes:
        actions: "none" (the prefix is one separator), "continuous" (one position embeds the
            scaled actions) or "binned" (one token per action column).
        num_bins: bins per column for "binned", uniform in symlog space.
        action_min, action_max: range of the bins in the units of the actions; one number, or one
            per column. Values outside fall into the outermost bins. null: the range of the train
            drives, per column.
        predict_actions: weight of the cross entropy of "binned" actions in the loss. Above 0,
            the model predicts actions like tokens, and a decoder can sample them. 0: the model
            only reads actions (as in GAIA-1).
        first_target_step: first time step whose tokens count in losses and scores. Frame 0 has no
            past; 1 leaves it out.
        separator: whether the prefix of "none" has a separator. Without it, the last token of a
            frame predicts the first token of the next frame. The very first token is not
            predicted and counts as uniform.
        start_token: put a token with its own id before the first frame, to predict its first
            token; only without a separator (Cosmos: <bov>).
        text_tokens: positions per prefix for the embedded caption (GAIA-1: 32); 0: no text.
        text_width: channels of the text encoder; 0: as in training.
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
        one_of(ACTION_KINDS, "layout.", actions=self.actions)
        at_least(2, "layout.", num_bins=self.num_bins)
        at_least(0, "layout.", text_tokens=self.text_tokens, text_width=self.text_width)
        at_least(0, "layout.", first_target_step=self.first_target_step)
        self.check_reading(self.actions)
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

    def with_text(self, width: int) -> "LayoutConfig":
        """A copy for a text encoder of this width; BadInput if the layout has no text."""
        if not self.text_tokens or self.text_width not in (0, width):
            raise BadInput(
                f"layout.text_tokens={self.text_tokens}, text_width={self.text_width} with a text "
                f"encoder of width {width}; set text_tokens=32 and text_width=0, or model.text=null"
            )
        return replace(self, text_width=width)

    def without_actions(self) -> "LayoutConfig":
        """A copy with a separator instead of actions."""
        return replace(self, actions="none", predict_actions=0.0, **UNREAD)

    @property
    def ranged(self) -> bool:
        """Whether both ends of the bins are known; else the data gives them."""
        return self.action_min is not None and self.action_max is not None

    def within(self, ranges: ActionRanges) -> "LayoutConfig":
        """A copy with these ranges for bins without a given range."""
        if self.actions != "binned":
            return self
        low, high = (
            found if given is None else given
            for given, found in zip((self.action_min, self.action_max), ranges, strict=True)
        )
        return replace(self, action_min=low, action_max=high)

    def ranges(self, num_actions: int) -> ActionRanges:
        """Lowest and highest action per column; BadInput for another number of columns."""
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


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Base of the configs of all kinds of networks; `KINDS` lists them.

    Attributes:
        context_steps: time steps of the context, the predicted one included.
        layout: layout of actions and captions in the input.
    """

    context_steps: int = 8
    layout: LayoutConfig = field(default_factory=LayoutConfig)

    def without_actions(self) -> Self:
        """A copy without action conditioning."""
        return replace(self, layout=self.layout.without_actions())

    def within(self, ranges: ActionRanges) -> Self:
        """A copy with these ranges for action bins without a given range."""
        return replace(self, layout=self.layout.within(ranges))

    def standardised(self, moments: ActionMoments) -> Self:
        """A copy with these moments for standardised actions without given ones."""
        return replace(self, layout=self.layout.standardised(moments))

    def named(self, columns: Sequence[str]) -> Self:
        """A copy that knows the names of the action columns where it needs them."""
        return replace(self, layout=self.layout.named(columns))

    def with_text(self, width: int) -> Self:
        """A copy for a text encoder of this width; BadInput if the network reads no text."""
        return replace(self, layout=self.layout.with_text(width))

    @property
    def width_ratio(self) -> float:
        """Ratio r of width transfer (`worldmodel.dynamics.mup`); 1: off or not supported."""
        return 1.0

    def widened(self) -> Self:
        """A copy of twice the width, with twice the heads; the width of the text stays.

        Only kinds with width transfer support it.
        """
        raise NotImplementedError(type(self).__name__)

    @property
    def text_tokens(self) -> int:
        """Number of tokens of a caption; 0: any number, or no text."""
        return self.layout.text_tokens

    @property
    def text_width(self) -> int:
        """Channels of the text encoder; 0: no text, or the encoder is not known yet."""
        return self.layout.text_width


def width_ratio(base_width: int, dim: int) -> float:
    """Ratio r of width transfer (`worldmodel.dynamics.mup`); 1: off."""
    return base_width / dim if base_width else 1.0


def check_widths(dim: int, num_heads: int, look_back: int) -> None:
    """BadInput unless heads divide the width, and as `check_look_back`."""
    multiple_of(num_heads, "num_heads", dim=dim)
    check_look_back(look_back)


def check_reads_actions(layout: LayoutConfig) -> None:
    """BadInput if a kind that only reads actions is asked to predict them."""
    if layout.predict_actions:
        raise BadInput(
            f"layout.predict_actions={layout.predict_actions}: this kind only reads actions; "
            "set it to 0"
        )


def check_look_back(look_back: int) -> None:
    """BadInput unless the side of the window is odd, or 0 (off)."""
    if look_back < 0 or (look_back and look_back % 2 == 0):
        raise BadInput(f"look_back={look_back}; give 0 (off) or an odd number")


class Yarn(NamedTuple):
    """YaRN: slower RoPE for clips longer than in training (arXiv 2309.00071, section 3.2).

    As in Cosmos, the magnitude factor is left out.

    Attributes:
        scale: factor that divides the rate of slow channels; 1: no change.
        beta_fast, beta_slow: numbers of rotations over the original length. Channels above
            `beta_fast` keep their rate. Channels below `beta_slow` are divided by `scale`.
            Between them, the rate is interpolated.
        original: time steps and rows of the training grids; columns use the rows.
    """

    scale: float = 1.0
    beta_fast: float = 4.0
    beta_slow: float = 1.0
    original: tuple[int, int] = (1, 1)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Number of channel pairs of a head for time, row and column: about a third each.

    Raises:
        BadInput: head_dim is odd or too small for three axes.
    """
    if head_dim % 2 or head_dim < 6:
        raise BadInput(
            f"head_dim={head_dim} does not fit rotary positions over time, row and column; "
            "choose dim / num_heads even and at least 6, or positions=learned"
        )
    third = head_dim // 6
    return head_dim // 2 - 2 * third, third, third
