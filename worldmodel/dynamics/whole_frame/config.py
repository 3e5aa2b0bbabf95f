"""Settings of the whole-frame world model; imports no torch."""

from dataclasses import dataclass

from training.ranges import at_least, below_one, positive
from worldmodel.dynamics.config import DynamicsConfig, check_reads_actions, check_widths


@dataclass(frozen=True)
class WholeFrameConfig(DynamicsConfig):
    """Shape of the whole-frame model.

    Attributes:
        dim: width of the hidden states.
        num_layers: layers of the trunk; even ones attend within a frame, odd ones over time.
        inner_layers: causal layers over the cells of a frame, after the trunk; 0: the cells are
            sampled independently.
        num_heads: number of attention heads.
        mlp_ratio: width inside the MLP divided by `dim`.
        look_back: side (odd) of the window of the previous frame, around a cell, that is added to
            the input of the cell; 0: off.
        share_factors: tokens that share a factor (a digit of FSQ) share a part of their embedding
            (`worldmodel.dynamics.shared_factors`); null: where tokens have factors.
        dropout: dropout on embeddings and residual branches.
        layout: layout of actions and captions. "continuous" embeds a row of actions as one
            vector; "binned" adds one embedding per column. Every cell of a time step gets this
            vector and the mean over the `text_tokens` of the caption.
    """

    dim: int = 256
    num_layers: int = 6
    inner_layers: int = 0
    num_heads: int = 4
    mlp_ratio: float = 4.0
    look_back: int = 3
    share_factors: bool | None = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_widths(self.dim, self.num_heads, self.look_back)
        at_least(2, num_layers=self.num_layers, context_steps=self.context_steps)
        at_least(0, inner_layers=self.inner_layers)
        below_one(dropout=self.dropout)
        positive(mlp_ratio=self.mlp_ratio)
        check_reads_actions(self.layout)
