"""What describes a world model, whatever its kind; imports no torch."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from training.errors import BadInput
from training.ranges import at_least, multiple_of, one_of

ActionRanges = tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest of every column


ACTION_KINDS = ("none", "continuous", "binned")


@dataclass(frozen=True)
class LayoutConfig:
    """How actions enter the sequence.

    Attributes:
        actions: "none" (prefix = one separator), "continuous" (one position that embeds
            symlog(actions)) or "binned" (one token per action column).
        num_bins: bins per column of "binned", uniform in symlog space.
        action_min, action_max: range of the bins in the units of the actions, one for all
            columns or one each. Values outside fall into the outermost bins. None: from the
            train drives, column by column.
        predict_actions: weight of the cross entropy of "binned" actions in the loss, which are
            then predicted like tokens, and a decoder can sample them. 0: actions are only read
            (as in GAIA-1).
        first_target_step: first time step whose tokens count in a loss or a score; 1 leaves
            out frame 0, which has no past.
        separator: whether "none" has a prefix. Without it, the last token of a frame predicts the
            first of the next. Nothing predicts the very first token: it counts as uniform.
        start_token: whether a token with its own id precedes the first frame and predicts its
            first token, if there is no separator (Cosmos: <bov>).
        text_tokens: positions of every prefix for the embedded caption (GAIA-1: 32); 0 for no
            text.
        text_width: channels of the text encoder; 0: from the encoder of training.
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


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """What describes a network, whatever its kind; a line in `KINDS` names it.

    Attributes:
        context_steps: time steps that the network can see at once, the predicted one included.
        layout: how actions and captions are read.
    """

    context_steps: int = 16
    layout: LayoutConfig = field(default_factory=LayoutConfig)

    def without_actions(self) -> Self:
        """The same network, not conditioned on any action."""
        return replace(self, layout=self.layout.without_actions())

    def within(self, ranges: ActionRanges) -> Self:
        """The same network, its action bins in these ranges where it was given none."""
        return replace(self, layout=self.layout.within(ranges))

    def with_text(self, width: int) -> Self:
        """The same network for a text encoder of this width; BadInput where it reads none."""
        return replace(self, layout=self.layout.with_text(width))

    @property
    def width_ratio(self) -> float:
        """Of width transfer (`worldmodel.dynamics.mup`); 1 where it is off, or a kind has none."""
        return 1.0

    def widened(self) -> Self:
        """The same network twice as wide, by more heads of the same size; the text's width stays.

        Only kinds with width transfer have one.
        """
        raise NotImplementedError(type(self).__name__)

    @property
    def text_tokens(self) -> int:
        """Tokens of a caption that are read; 0 for any number (or no text)."""
        return self.layout.text_tokens

    @property
    def text_width(self) -> int:
        """Numbers per token of the text encoder; 0 for no text, or while the encoder is unknown."""
        return self.layout.text_width


def width_ratio(base_width: int, dim: int) -> float:
    """r of width transfer (`worldmodel.dynamics.mup`); 1 where it is off."""
    return base_width / dim if base_width else 1.0


def check_widths(dim: int, num_heads: int, look_back: int) -> None:
    """BadInput unless heads divide the width and the window has a middle."""
    multiple_of(num_heads, "num_heads", dim=dim)
    check_look_back(look_back)


def check_reads_actions(layout: LayoutConfig) -> None:
    """BadInput where a kind that only reads actions should predict them."""
    if layout.predict_actions:
        raise BadInput(
            f"layout.predict_actions={layout.predict_actions}: this kind only reads actions; "
            "set it to 0"
        )


def check_look_back(look_back: int) -> None:
    """BadInput unless the window has a middle, or is off."""
    if look_back < 0 or (look_back and look_back % 2 == 0):
        raise BadInput(f"look_back={look_back}; give 0 (off) or an odd number")


class Yarn(NamedTuple):
    """Slower rotation for clips longer than in training (arXiv 2309.00071, section 3.2).

    Attributes:
        scale: slow channels are slowed down by this factor; 1 changes nothing.
        beta_fast, beta_slow: number of turns over the original length. Channels above
            `beta_fast` keep their rate. Channels below `beta_slow` are divided by `scale`.
            Those between are interpolated. As in Cosmos, the magnitude factor is left out.
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
