"""Settings of the GPT, from GPT-2 to Llama; imports no torch."""

from dataclasses import dataclass, replace
from typing import Self

from training.errors import BadInput
from training.ranges import at_least, below_one, multiple_of, one_of, positive
from worldmodel.dynamics.config import (
    DynamicsConfig,
    Yarn,
    axis_pairs,
    check_look_back,
    width_ratio,
)

CHOICES = {
    "positions": ("rope", "learned", "factored"),
    "gelu": ("tanh", "none"),
    "norm": ("layer", "rms"),
    "mlp": ("gelu", "swiglu"),
    "head_ids": ("frame", "all"),
}
WIDTHS = ("mup_base_width", "mlp_hidden", "head_channels", "context_dim", "context_tokens")


@dataclass(frozen=True)
class GPTConfig(DynamicsConfig):
    """Shape of the GPT.

    Attributes:
        dim: width of the hidden states.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        mlp_ratio: width inside the MLP divided by `dim`.
        dropout: dropout on embeddings and residual branches; not on attention weights, because
            fast attention kernels do not support it.
        positions: "rope" (over time, row, column), "learned" (one vector per position) or
            "factored" (learned; a temporal plus a spatial vector).
        rope_theta: base of the RoPE frequencies.
        qk_norm: normalise queries and keys per head.
        bias: bias in linear layers and norms.
        gelu: "tanh" (GPT-2) or "none" (exact), as in torch.nn.GELU.
        tie_embeddings: the head shares the rows of the token embedding.
        look_back: side (odd) of the window of the previous frame, around the predicted cell, that
            is added to the input. It helps because most of a driving scene moves by less than a
            cell. 0: a plain GPT, which must find that cell by attention.
        share_factors: tokens that share a factor (a digit of FSQ) share a part of their embedding
            (`worldmodel.dynamics.shared_factors`); null: where tokens have factors.
        mup_base_width: `dim` at which the learning rate was tuned. Other widths scale learning
            rates, initialisation and logits (`worldmodel.dynamics.mup`). 0: off.
        norm: "layer" (LayerNorm) or "rms" (RMSNorm).
        norm_affine: whether norms have weights.
        norm_eps, qk_norm_eps: epsilon of the norms, and of those of queries and keys.
        mlp: "gelu" (GPT-2) or "swiglu" (Llama; arXiv 2002.05202), with a third matrix.
        mlp_hidden: width inside the MLP; 0: mlp_ratio * dim.
        num_kv_heads: number of heads of keys and values (grouped-query attention); 0: num_heads.
        head_channels: channels per head; 0: dim / num_heads.
        attention_scale: scale of query times key; 0: 1 / sqrt(channels per head).
        yarn_scale, yarn_beta_fast, yarn_beta_slow, yarn_original: see `Yarn`; scale 1: off.
        sinusoid: add sines and cosines of the positions to the input of every block (Cosmos).
        head_ids: "frame" (the head predicts frame tokens) or "all" (also prefix ids, as in some
            published checkpoints; no loss counts them).
        unused_ids: further ids at the end; published weights have them, no sequence uses them.
        output_scale: factor on the input of the head.
        context_tokens: number of caption tokens for cross-attention; 0: none. The alternative is
            `layout.text_tokens`.
        cross_every: every n-th block has cross-attention, from block 0 on.
        context_dim: channels of the text encoder; 0: as in training. Without `context_tokens`,
            captions may have any length, as in published checkpoints.
        factors: sizes whose product is the vocabulary size; the first varies fastest. The
            embedding is a sum over factors. The head predicts the factors in order
            (`worldmodel.dynamics.gpt.heads`). (): one table of all tokens.
        noise_levels: number of embedded levels of context noise
            (`worldmodel.conditioning.robustness`); 0: no level embedding.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    mlp_ratio: float = 4.0
    positions: str = "rope"
    rope_theta: float = 10_000.0
    qk_norm: bool = True
    bias: bool = False
    dropout: float = 0.0
    gelu: str = "tanh"
    tie_embeddings: bool = True
    look_back: int = 3
    share_factors: bool | None = False
    mup_base_width: int = 0
    norm: str = "layer"
    norm_affine: bool = True
    norm_eps: float = 1e-5
    qk_norm_eps: float = 1e-6
    mlp: str = "gelu"
    mlp_hidden: int = 0
    num_kv_heads: int = 0
    head_channels: int = 0
    attention_scale: float = 0.0
    yarn_scale: float = 1.0
    yarn_beta_fast: float = 4.0
    yarn_beta_slow: float = 1.0
    yarn_original: tuple[int, int] = (1, 1)
    sinusoid: bool = False
    head_ids: str = "frame"
    unused_ids: int = 0
    output_scale: float = 1.0
    context_dim: int = 0
    context_tokens: int = 0
    cross_every: int = 1
    factors: tuple[int, ...] = ()
    noise_levels: int = 0

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            one_of(known, **{name: getattr(self, name)})
        self._check_widths()
        below_one(dropout=self.dropout)
        at_least(1, num_layers=self.num_layers, cross_every=self.cross_every)
        at_least(2, context_steps=self.context_steps)
        at_least(0, noise_levels=self.noise_levels)
        if self.unused_ids < 0 or (self.unused_ids and self.factors):
            raise BadInput(f"unused_ids={self.unused_ids}; give 0 or more, and 0 beside factors")
        check_look_back(self.look_back)
        if self.look_back and not self.layout.separator:
            raise BadInput(f"look_back={self.look_back} needs layout.separator=true; set it to 0")
        if self.layout.start_token and self.positions == "factored":
            raise BadInput("layout.start_token has no place in positions=factored; use rope")
        if self.positions == "rope":
            axis_pairs(self.head_dim)
        elif self.sinusoid or self.yarn_scale != 1:
            raise BadInput("sinusoid and yarn_scale belong to positions=rope; set that")
        if self.yarn_scale <= 0 or not 0 < self.yarn_beta_slow < self.yarn_beta_fast:
            raise BadInput(
                f"yarn_scale={self.yarn_scale}, yarn_beta_slow={self.yarn_beta_slow}, "
                f"yarn_beta_fast={self.yarn_beta_fast}; give positive numbers, slow below fast"
            )
        if self.layout.text_tokens and (self.context_tokens or self.context_dim):
            raise BadInput(
                f"layout.text_tokens={self.layout.text_tokens}, context_tokens="
                f"{self.context_tokens}, context_dim={self.context_dim}: captions are read in "
                "positions or by cross-attention; set one to 0"
            )
        if self.factors and self.share_factors:
            raise BadInput("share_factors=true beside factors, which share already; drop one")
        if self.factors and (self.tie_embeddings or self.head_ids == "all" or self.look_back):
            raise BadInput(
                f"factors={self.factors}: a factorised head is untied, knows the frame's tokens "
                "alone and has no look_back; set tie_embeddings=false, look_back=0"
            )

    def _check_widths(self) -> None:
        at_least(1, dim=self.dim, num_heads=self.num_heads)
        if not self.head_channels:
            multiple_of(self.num_heads, "num_heads", dim=self.dim)
        at_least(0, num_kv_heads=self.num_kv_heads)
        multiple_of(self.kv_heads, "num_kv_heads", num_heads=self.num_heads)
        for name in WIDTHS:
            at_least(0, **{name: getattr(self, name)})
        for name in ("norm_eps", "qk_norm_eps", "output_scale", "rope_theta", "mlp_ratio"):
            positive(**{name: getattr(self, name)})
        at_least(0.0, attention_scale=self.attention_scale)

    @property
    def head_dim(self) -> int:
        return self.head_channels or self.dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def hidden(self) -> int:
        """Width inside the MLP."""
        return self.mlp_hidden or int(self.mlp_ratio * self.dim)

    @property
    def width_ratio(self) -> float:
        return width_ratio(self.mup_base_width, self.dim)

    def widened(self) -> Self:
        widths = ("dim", "num_heads", "num_kv_heads", "mlp_hidden")
        twice = {name: 2 * getattr(self, name) for name in widths}
        return replace(self, **twice, mup_base_width=0)

    @property
    def yarn(self) -> Yarn | None:
        if self.yarn_scale == 1:
            return None
        return Yarn(self.yarn_scale, self.yarn_beta_fast, self.yarn_beta_slow, self.yarn_original)

    @property
    def text_tokens(self) -> int:
        return self.context_tokens or self.layout.text_tokens

    @property
    def text_width(self) -> int:
        return self.context_dim or self.layout.text_width

    def with_text(self, width: int) -> Self:
        if not self.context_tokens:
            return super().with_text(width)
        if self.context_dim not in (0, width):
            raise BadInput(
                f"context_dim={self.context_dim} with a text encoder of width {width}; "
                "set context_dim=0, or model.text=null"
            )
        return replace(self, context_dim=width)
