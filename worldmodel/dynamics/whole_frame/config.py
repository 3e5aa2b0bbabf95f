"""The shape of the whole-frame kind."""

from dataclasses import dataclass, field

from training.ranges import at_least, below_one
from worldmodel.dynamics.config import DynamicsConfig, check_reads_actions, check_widths


@dataclass(frozen=True)
class WholeFrameConfig(DynamicsConfig):
    """Shape of the network.

    Attributes:
        num_layers: of the trunk; the even ones attend within a frame, the odd ones over time.
        inner_layers: causal layers over the cells of a frame, after the trunk; 0 for cells that
            are drawn independently.
        look_back: side (odd) of the window of the previous frame around a cell that is added to
            its input; 0 leaves that to attention.
        dropout: on embeddings and residual branches.
        layout: how actions enter; "continuous" embeds a row as one vector, "binned" adds up one
            embedding per column; every cell of a step gets it, and the mean of the caption's
            `text_tokens` tokens.
    """

    dim: int = 256
    num_layers: int = 6
    inner_layers: int = 0
    num_heads: int = 4
    mlp_ratio: float = 4.0
    context_steps: int = field(default=8, kw_only=True)
    look_back: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_widths(self.dim, self.num_heads, self.look_back)
        at_least(2, num_layers=self.num_layers, context_steps=self.context_steps)
        at_least(0, inner_layers=self.inner_layers)
        below_one(dropout=self.dropout)
        check_reads_actions(self.layout)
