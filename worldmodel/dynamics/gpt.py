"""A GPT over token grids and actions: the autoregressive world model.

The network of GPT-2 (Radford et al. 2019) with optional rotary positions over time, row and
column, and optional query-key norm. What stands where in its sequence is
`worldmodel.dynamics.layout`.
"""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenizer.token_store import TokenSpec
from training.errors import BadInput
from training.recompute import call
from worldmodel.dynamics.attention import Attention, KVCache, Rotation, axis_pairs, linear, rotation
from worldmodel.dynamics.base import Dynamics, TokenScores
from worldmodel.dynamics.layout import LayoutConfig, SequenceLayout, symlog
from worldmodel.dynamics.mup import is_hidden, lr_multipliers, width_ratio


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the network.

    Attributes:
        dropout: on embeddings and residual branches; not on attention weights, which would
            cost the fast attention kernels.
        context_steps: time steps that the network can see at once, the predicted one included.
        positions: "rope" (rotary over time, row, column) or "learned" (one per slot).
        gelu: "tanh" (GPT-2's) or "none" (exact), as in torch.nn.GELU.
        tie_embeddings: the head reuses the frame rows of the token embedding.
        look_back: side (odd) of the window of the previous frame, around the cell that a slot
            predicts, that is added to the slot's input; 0 for a plain GPT, which has to find
            that cell by attention. Most of a driving scene moves by less than a cell, so this
            is where most of the answer lies.
        mup_base_width: `dim` for which the learning rate was found; other widths then scale
            rates, starts and logits from it (`worldmodel.dynamics.mup`). 0 is off.
    """

    dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    mlp_ratio: float = 4.0
    context_steps: int = 16
    positions: str = "rope"
    rope_theta: float = 10_000.0
    qk_norm: bool = True
    bias: bool = False
    dropout: float = 0.0
    gelu: str = "tanh"
    tie_embeddings: bool = False
    look_back: int = 3
    mup_base_width: int = 0
    layout: LayoutConfig = field(default_factory=LayoutConfig)

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.dim % self.num_heads:
            raise BadInput(f"dim={self.dim} is no multiple of num_heads={self.num_heads}")
        if self.positions not in ("rope", "learned"):
            raise BadInput(f"positions={self.positions!r}; choose rope or learned")
        if self.gelu not in ("tanh", "none"):
            raise BadInput(f"gelu={self.gelu!r}; choose tanh or none (exact)")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout={self.dropout}; give 0 <= dropout < 1")
        if self.num_layers < 1 or self.context_steps < 2:
            raise BadInput(
                f"num_layers={self.num_layers}, context_steps={self.context_steps}; "
                "give at least 1 layer and 2 steps"
            )
        if self.look_back and self.look_back % 2 == 0:
            raise BadInput(f"look_back={self.look_back}; give 0 (off) or an odd number")
        if self.mup_base_width < 0:
            raise BadInput(f"mup_base_width={self.mup_base_width}; give a width, or 0 (off)")
        if self.positions == "rope":
            axis_pairs(self.head_dim)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def width_ratio(self) -> float:
        return width_ratio(self.mup_base_width, self.dim)

    def without_actions(self) -> "GPTConfig":
        return replace(self, layout=replace(self.layout, actions="none"))

    def build(self, spec: TokenSpec, num_actions: int) -> "GPT":
        return GPT(self, spec, num_actions)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = int(config.mlp_ratio * config.dim)
        self.attention_norm = nn.LayerNorm(config.dim, bias=config.bias)
        self.attention = Attention(config.dim, config.num_heads, config.bias, config.qk_norm)
        self.mlp_norm = nn.LayerNorm(config.dim, bias=config.bias)
        self.up = nn.Linear(config.dim, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, config.dim, bias=config.bias)
        self.gelu, self.dropout = config.gelu, config.dropout

    def forward(
        self,
        x: Float[Tensor, "batch slot dim"],
        turn: Rotation | None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch slot dim"]:
        x = x + self._drop(self.attention(self.attention_norm(x), turn, cache, layer))
        return x + self._drop(self._mlp(x))

    def step(
        self, x: Float[Tensor, "batch 1 dim"], turn: Rotation | None, cache: KVCache, layer: int
    ) -> Float[Tensor, "batch 1 dim"]:
        """One new token against the cache."""
        x = x + self.attention.step(self.attention_norm(x), turn, cache, layer)
        return x + self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        return linear(self.down, F.gelu(linear(self.up, self.mlp_norm(x)), approximate=self.gelu))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class GPT(Dynamics):
    """Predicts every frame token from all earlier tokens and actions.

    Raises:
        BadInput: the configuration does not fit the data, or a clip does not fit the model.
    """

    turn_cos: Tensor
    turn_sin: Tensor

    def __init__(self, config: GPTConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__()
        self.config: GPTConfig = config
        self.spec, self.num_actions = spec, num_actions
        self.conditioned = config.layout.actions != "none"
        self.first_target_step = config.layout.first_target_step
        self.layout = SequenceLayout(config.layout, spec, num_actions)
        self.num_slots = self.layout.sequence_length(config.context_steps)
        self.embed = nn.Embedding(self.layout.num_ids, config.dim)
        if config.positions == "learned":
            self.position = nn.Embedding(self.num_slots, config.dim)
        else:
            positions = self.layout.positions(config.context_steps)
            turn = rotation(positions, config.head_dim, config.rope_theta)
            self.register_buffer("turn_cos", turn.cos, persistent=False)
            self.register_buffer("turn_sin", turn.sin, persistent=False)
        if config.look_back:
            side = config.look_back
            self.look_back = nn.Conv2d(config.dim, config.dim, side, padding=side // 2, bias=False)
        if config.layout.actions == "continuous":
            self.action = nn.Sequential(
                nn.Linear(num_actions, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim)
            )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, bias=config.bias)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.dim, spec.vocab_size, bias=False)
        self.init_weights()

    def forward(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time space vocab"]:
        """Logits of every frame token given everything before it (teacher-forced).

        Args:
            actions: row t is in force between frame t and t + 1; at least time - 1 rows.
            drop_actions: examples whose actions are all replaced by a learned "no action".
        Raises:
            BadInput: wrong grid, wrong action width, or more frames than `context_steps`.
        """
        time = tokens.shape[1]
        x = self.embed_clip(tokens, actions, drop_actions)[:, :-1]  # the last token predicts none
        turn = self.turns(0, x.shape[1])
        for block in self.blocks:
            x = call(block, x, turn, recompute=self.recompute)
        slots = self.layout.predicting_slots(time).flatten().to(x.device)
        logits = self.logits(x.index_select(1, slots))
        return logits.unflatten(1, (time, -1))

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the frame tokens that count."""
        logits = self(tokens, actions, drop_actions)
        return self._nats(logits, tokens)[:, self.first_target_step :].mean()

    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> TokenScores:
        """Exact: every token given all earlier ones, those of its own frame included."""
        logits = self(tokens, actions, drop_actions).float()
        return TokenScores(self._nats(logits, tokens), logits.argmax(-1) == tokens.flatten(2))

    @staticmethod
    def _nats(
        logits: Float[Tensor, "batch time space vocab"],
        tokens: Int[Tensor, "batch time height width"],
    ) -> Float[Tensor, "batch time space"]:
        flat = F.cross_entropy(logits.flatten(0, 2).float(), tokens.flatten(), reduction="none")
        return flat.view(logits.shape[:3])

    def embed_clip(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch slot dim"]:
        """What the first block reads: ids, actions and, where learned, positions."""
        time, limit = tokens.shape[1], self.config.context_steps
        if not 1 <= time <= limit:
            raise BadInput(f"{time} frames, but the model sees 1 to {limit}; shorten the clips")
        x = self.embed(self.layout.sequence_ids(tokens, actions, drop_actions))
        if self.config.layout.actions == "continuous":
            assert actions is not None
            later = self.embed_actions(actions[:, : time - 1], drop_actions)
            steps = x.unflatten(1, (time, -1))
            prefix = torch.cat([steps[:, :1, 0], later.to(x.dtype)], dim=1)
            prefix = prefix[:, :, None]
            x = torch.cat([prefix, steps[:, :, 1:] + prefix], dim=2).flatten(1, 2)
        if self.config.look_back:
            hints = self.hints(tokens[:, :-1].flatten(0, 1)).unflatten(0, (len(tokens), -1))
            # A slot gets the hint of the cell that it predicts; step 0 has nothing to look back at.
            hints = F.pad(hints.to(x.dtype), (0, 0, self.layout.prefix_length - 1, 1, 1, 0))
            x = x + hints.flatten(1, 2)
        if self.config.positions == "learned":
            x = x + self.position.weight[: x.shape[1]]
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def embed_actions(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """Prefixes of the "continuous" layout, without their positions.

        They are also added to every frame token of their step: a token then knows the action
        in the first block, instead of having to fetch it before it can look for its source.
        """
        x = self.action(symlog(actions).to(self.embed.weight.dtype))
        if drop_actions is None:
            return x
        return torch.where(drop_actions[:, None, None], self.embed.weight[-1].to(x.dtype), x)

    def hints(self, frame: Int[Tensor, "batch height width"]) -> Float[Tensor, "batch space dim"]:
        """What `look_back` tells about every cell of the next frame: this frame around it."""
        cells = self.embed(frame)
        around = self.look_back(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (cells + around).flatten(1, 2)

    def turns(self, start: int, stop: int) -> Rotation | None:
        """Rotary angles of slots start .. stop - 1; None where positions are learned."""
        if self.config.positions == "learned":
            return None
        return Rotation(self.turn_cos, self.turn_sin).slots(start, stop)

    def logits(self, x: Float[Tensor, "batch slot dim"]) -> Float[Tensor, "batch slot vocab"]:
        """Final norm and head; the head knows only the frame's vocabulary."""
        x = self.norm(x) * self.config.width_ratio
        if self.config.tie_embeddings:
            return F.linear(x, self.embed.weight[: self.layout.vocab_size])
        return linear(self.head, x)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; nothing else does.

        | parameter                                   | start                                |
        |---------------------------------------------|--------------------------------------|
        | embeddings (ids, learned positions)         | normal, std 0.02                     |
        | linear weights (qkv, up, action, head)      | normal, std 0.02                     |
        | look_back                                   | normal, std 0.5 / sqrt(inputs)       |
        | residual projections (attention.proj, down) | normal, std 0.02 / sqrt(2 layers)    |
        | norm weights                                | 1                                    |
        | biases                                      | 0                                    |

        Source: GPT-2 (Radford et al. 2019, section 2.3). `mup_base_width` multiplies the std of
        hidden matrices (`worldmodel.dynamics.mup`).
        """
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 1:
                nn.init.ones_(parameter)
            elif name.endswith(("attention.proj.weight", "down.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif name == "look_back.weight":
                nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
            else:
                nn.init.normal_(parameter, std=0.02)
            if is_hidden(name, parameter) and name != "look_back.weight":
                parameter.mul_(math.sqrt(self.config.width_ratio))

    def lr_multipliers(self) -> dict[str, float]:
        """Learning rate of every parameter as a multiple of `optimizer.lr`."""
        return lr_multipliers(self.named_parameters(), self.config.width_ratio)

    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters; without embeddings, those of lookups and positions are left out.

        A tied head multiplies, so its rows count even without embeddings.
        """
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        total -= self.embed.weight.numel()
        if self.config.positions == "learned":
            total -= self.position.weight.numel()
        if self.config.tie_embeddings:
            total += self.layout.vocab_size * self.config.dim
        return total

    def flops_per_token(self, num_steps: int, causal: bool = False) -> float:
        """Floating-point operations of one training step (forward and backward) per slot.

        6 N + 12 L d T, with N = `num_parameters(embeddings=False)`, L layers of width d, and
        T slots in the sequence (PaLM, arXiv 2204.02311, appendix B). `causal=True` counts
        only the half of the attention that a causal mask leaves: 6 N + 6 L d T. State which
        one stands behind a reported utilisation. Prefix slots count as tokens here, and the
        convolution of `look_back` counts for them too, although only cells need it.
        """
        length = self.layout.sequence_length(num_steps)
        attention = 12 * self.config.num_layers * self.config.dim * length
        return 6 * self.num_parameters(embeddings=False) + attention / (2 if causal else 1)

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        slots = num_clips * self.layout.sequence_length(num_steps)
        return slots * self.flops_per_token(num_steps, causal)
