"""Settings of the masked world model; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from training.ranges import at_least, below_one, one_of, positive, share, within
from worldmodel.dynamics.config import (
    DynamicsConfig,
    check_reads_actions,
    check_widths,
    width_ratio,
)


@dataclass(frozen=True)
class MaskedConfig(DynamicsConfig):
    """Shape of the masked model, and the corruption of its input in training.

    Attributes:
        dim: width of the hidden states.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        mlp_ratio: width inside the MLP divided by `dim`.
        factors: sizes whose product is the vocabulary size; the first varies fastest. (): one
            factor.
        qkv_bias, proj_bias, mlp_bias: biases of attention and MLP.
        qk_norm: one LayerNorm per head for queries and keys, instead of norms before layers.
        dropout: dropout on embeddings and residual branches.
        look_back: side (odd) of the window of the previous frame, around a cell, that is added to
            the input of the cell; 0: off, as published.
        mup_base_width: `dim` at which the learning rate was tuned (`worldmodel.dynamics.mup`);
            it also sets the attention scale to 8 / head_dim, as published. 0: off.
        max_corrupt_rate, non_mlm_ratio, num_prompt_frames: see
            `worldmodel.dynamics.masked.corruption`.
        layout: layout of actions and captions; frame 0 is never a target. The mean over the
            `text_tokens` of a caption is added to every cell of its frame.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    mlp_ratio: float = 4.0
    factors: Sequence[int] = ()
    qkv_bias: bool = False
    proj_bias: bool = True
    mlp_bias: bool = True
    qk_norm: bool = False
    dropout: float = 0.0
    look_back: int = 3
    mup_base_width: int = 0
    max_corrupt_rate: float = 0.2
    non_mlm_ratio: float = 0.5
    num_prompt_frames: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        check_widths(self.dim, self.num_heads, self.look_back)
        at_least(1, num_layers=self.num_layers)
        at_least(2, context_steps=self.context_steps)
        at_least(0, mup_base_width=self.mup_base_width)
        share(max_corrupt_rate=self.max_corrupt_rate, non_mlm_ratio=self.non_mlm_ratio)
        below_one(dropout=self.dropout)
        positive(mlp_ratio=self.mlp_ratio)
        within(1, self.context_steps - 1, num_prompt_frames=self.num_prompt_frames)
        check_reads_actions(self.layout)
        one_of(("input",), "layout.", action_input=self.layout.action_input)
        one_of((1,), "layout.", first_target_step=self.layout.first_target_step)

    @property
    def attention_scale(self) -> float:
        head_dim = self.dim // self.num_heads
        return 8 / head_dim if self.mup_base_width else head_dim**-0.5

    @property
    def width_ratio(self) -> float:
        return width_ratio(self.mup_base_width, self.dim)

    def widened(self) -> Self:
        return replace(self, dim=2 * self.dim, num_heads=2 * self.num_heads, mup_base_width=0)
