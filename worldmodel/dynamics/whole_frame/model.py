"""The whole-frame world model: one trunk pass predicts all tokens of the next frame.

Time step t of the network reads frame t - 1 and the action that follows it, and predicts frame t.
Layers alternate between attention over the cells of a frame and attention over the past of a
cell. So the cost of a cell grows with cells + time steps, not with their product. Without inner
layers, a frame is a product of one distribution per cell. Inner layers are a small causal
transformer over the cells of a frame: they make the likelihood autoregressive, and the large
trunk still runs once per frame (DrivingWorld, arXiv 2412.19505, section 3.3).
"""

import math
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.optimization.recompute import maybe_checkpoint
from worldmodel.dynamics.actions.layers import num_in_blocks, of_frames, start_std
from worldmodel.dynamics.actions.vector import ActionVector
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.inputs import LookBack
from worldmodel.dynamics.scores import TokenScores, guesses
from worldmodel.dynamics.shared_factors import share_factors
from worldmodel.dynamics.text import TextContext, TextVector
from worldmodel.dynamics.whole_frame.axial import AxisBlock
from worldmodel.dynamics.whole_frame.comparison import Comparison
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig


class WholeFrame(Dynamics):
    """Predicts all tokens of a frame at once from past frames and actions.

    Raises:
        BadInput: the configuration does not fit the data, or a clip does not fit the model.
    """

    config: WholeFrameConfig

    def __init__(self, config: WholeFrameConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__(config, spec, num_actions)
        self.embed = nn.Embedding(self.layout.no_text_id, config.dim)
        share_factors(self.embed, spec, config.share_factors)
        self.spatial_pos_emb = nn.Embedding(spec.tokens_per_step, config.dim)
        self.temporal_pos_emb = nn.Embedding(config.context_steps, config.dim)
        if config.look_back:
            self.look_back = LookBack(config.dim, config.look_back)
        if config.layout.actions == "continuous":
            self.action = ActionVector(config.layout, num_actions, config.dim, spec.step_s)
        if self.reads_text:
            self.text = TextVector(config.text_width, config.dim)
        causal = [layer % 2 == 1 for layer in range(config.num_layers)]
        self.blocks = nn.ModuleList(
            AxisBlock(config, axis) for axis in causal + [True] * config.inner_layers
        )
        if config.inner_layers:
            self.token_gate = Comparison(config.dim)
        self.norm = nn.LayerNorm(config.dim, bias=False)
        self.init_weights()

    @property
    def independent_cells(self) -> bool:  # type: ignore[override]
        return self.config.inner_layers == 0

    @property
    def trunk_blocks(self) -> list[AxisBlock]:
        """Blocks that alternate between attention over space and over time."""
        return cast(list[AxisBlock], list(self.blocks))[: self.config.num_layers]

    @property
    def inner_blocks(self) -> list[AxisBlock]:
        """Blocks with causal attention over the cells of a frame."""
        return cast(list[AxisBlock], list(self.blocks))[self.config.num_layers :]

    def forward(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, "batch time space vocab"]:
        """Logits of every token of every frame (teacher-forced).

        Args:
            actions: row t acts between frame t and t + 1; at least time - 1 rows.
            drop_actions: examples that read a learned "no action" instead of their actions.
            captions: captions of every time step.
        Raises:
            BadInput: wrong grid, wrong action width, captions that do not fit, or more frames
                than `context_steps`.
        """
        embedded = self.embed_clip(tokens, actions, drop_actions, captions)
        acting = self.acting(actions, drop_actions, tokens.shape[1])
        states = self.trunk(embedded, None, acting)
        if self.config.inner_layers:
            target_embeddings = self.embed(tokens.flatten(2)).flatten(0, 1)
            states = self.inner(states.flatten(0, 1), target_embeddings, of_frames(acting))
            states = states.unflatten(0, tokens.shape[:2])
        return self.logits(states)

    def embed_clip(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, "batch time space dim"]:
        """Input of the first layer: a learned start, then every frame but the last."""
        self.check(tokens, actions, captions)
        batch, time = tokens.shape[:2]
        start = self.embed(self.layout.start_ids(batch, tokens)).sum(2, keepdim=True)
        later = self.embed_frames(tokens[:, :-1])
        if actions is not None and self.conditioned:
            later = later + self.embed_actions(actions[:, : time - 1], drop_actions)[:, :, None]
        x = torch.cat([start.expand(-1, -1, len(self.spatial_pos_emb.weight), -1), later], dim=1)
        if captions is not None:
            x = x + self.text(captions, 0, time).to(x.dtype)
        return self.with_positions(x, 0)

    def embed_frames(
        self, frames: Int[Tensor, "batch time height width"]
    ) -> Float[Tensor, "batch time space dim"]:
        """Embeddings of the tokens, with their neighbours if `look_back` is on."""
        cells = self.embed(frames)
        if self.config.look_back:
            flat = cells.flatten(0, 1).permute(0, 3, 1, 2)
            cells = cells + self.look_back(flat).permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])
        return cells.flatten(2, 3)

    def embed_actions(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """One vector per row of actions, or the learned "no action"."""
        if self.config.layout.actions == "binned":
            return self.embed(self.layout.action_ids(actions, drop_actions)).sum(2)
        out: Tensor = self.action(actions, self.embed.weight[-1], drop_actions)
        return out

    def places(self, first_step: int, num_steps: int) -> slice | list[int]:
        """Where in the context these time steps lie."""
        return slice(first_step, first_step + num_steps)

    def with_positions(
        self, x: Float[Tensor, "batch time space dim"], first_step: int
    ) -> Float[Tensor, "batch time space dim"]:
        """Add position embeddings; `x` starts at time step `first_step` of the context."""
        places = self.places(first_step, x.shape[1])
        x = x + self.temporal_pos_emb.weight[places, None] + self.spatial_pos_emb.weight
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def trunk(
        self,
        x: Float[Tensor, "batch time space dim"],
        cache: KVCache | None = None,
        acting: Float[Tensor, "batch time dim"] | None = None,
    ) -> Float[Tensor, "batch time space dim"]:
        """Hidden states of every cell and time step; with a cache, layers over time fill it.

        The cache batch is [cell example], so that `expand` repeats examples.
        """
        batch, time, space = x.shape[:3]
        for layer, block in enumerate(self.trunk_blocks):
            run = partial(maybe_checkpoint, block, recompute=self.recompute)
            if layer % 2 == 1:
                rows = x.permute(2, 0, 1, 3).flatten(0, 1)
                rows = run(rows, cache, layer // 2, acting)
                x = rows.view(space, batch, time, -1).permute(1, 2, 0, 3)
            else:
                x = run(x.flatten(0, 1), None, 0, of_frames(acting)).unflatten(0, (batch, time))
        return x

    def trunk_step(
        self,
        x: Float[Tensor, "batch 1 space dim"],
        cache: KVCache,
        acting: Float[Tensor, "batch 1 dim"] | None = None,
    ) -> Float[Tensor, "batch space dim"]:
        """Hidden states of one new time step, which is added to the cache."""
        x = x[:, 0]
        batch, space = x.shape[:2]
        for layer, block in enumerate(self.trunk_blocks):
            if layer % 2 == 1:
                rows = x.transpose(0, 1).flatten(0, 1)[:, None]
                rows = block.step(rows, cache, layer // 2, block.modulation(acting))
                x = rows.view(space, batch, -1).transpose(0, 1)
            else:
                x = block(x, None, 0, acting)
        cache.length += 1
        return x

    def inner(
        self,
        states: Float[Tensor, "frame space dim"],
        tokens: Float[Tensor, "frame space dim"],
        acting: Float[Tensor, "frame 1 dim"] | None = None,
    ) -> Float[Tensor, "frame space dim"]:
        """Refine every cell of a frame by the embedded tokens before it in raster order."""
        x = states + F.pad(self.token_gate(states, tokens)[:, :-1], (0, 0, 1, 0))
        for block in self.inner_blocks:
            x = maybe_checkpoint(block, x, None, 0, acting, recompute=self.recompute)
        return x

    def logits(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape vocab"]:
        """Final norm and tied head."""
        return F.linear(self.norm(x), self.embed.weight[: self.layout.vocab_size])

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the tokens that count."""
        logits = self(tokens, actions, drop_actions, captions)
        return self._token_nll(logits, tokens)[:, self.first_target_step :].mean()

    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> TokenScores:
        """Exact: a product over the cells of a frame or, with inner layers, autoregressive."""
        logits = self(tokens, actions, drop_actions, captions).float()
        best = guesses(logits, tokens.flatten(2))
        nll = self._token_nll(logits, tokens)
        return TokenScores(nll, best.correct, best.confidence, best.rank)

    @staticmethod
    def _token_nll(
        logits: Float[Tensor, "batch time space vocab"],
        tokens: Int[Tensor, "batch time height width"],
    ) -> Float[Tensor, "batch time space"]:
        nll = F.cross_entropy(logits.float().flatten(0, 2), tokens.flatten(), reduction="none")
        return nll.view(logits.shape[:3])

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; nothing else does.

        | parameter                                   | start                                |
        |---------------------------------------------|--------------------------------------|
        | embeddings                                  | normal, std 0.5 / sqrt(dim)          |
        | all linear weights                          | normal, std 0.5 / sqrt(inputs)       |
        | residual projections (attention.proj, down) | the same / sqrt(2 layers)            |
        | actions in blocks, "adaln"                  | 0                                    |
        | look_back                                   | normal, std 2 / sqrt(inputs)         |
        | text.project                                | embeddings' std / sqrt(inputs)       |
        | norm weights                                | 1                                    |
        | biases (of the action's layers)             | 0                                    |

        look_back starts larger, which keeps neighbours distinguishable; otherwise the network
        learns their positions late.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=self._init_std(name, parameter))

    def _init_std(self, name: str, parameter: Tensor) -> float:
        std = 0.5 / math.sqrt(parameter[0].numel())  # inputs of an embedding: dim
        if name.endswith(("attention.proj.weight", "down.weight")):
            return std / math.sqrt(2 * len(self.blocks))
        if name == "look_back.weight":
            return 4 * std
        if name == "text.project.weight":
            return std * 0.5 / math.sqrt(self.config.dim)
        return start_std(name, self.config.layout, std)

    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters; embeddings=False leaves out lookups and positions, not the head."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        tables = (self.embed, self.spatial_pos_emb, self.temporal_pos_emb)
        head = self.layout.vocab_size * self.config.dim
        return total - sum(table.weight.numel() for table in tables) + head

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """6 operations per weight and cell (of actions in blocks: and step), plus attention.

        Attention is 12 d per layer and attended cell.
        """
        config, cells = self.config, self.spec.tokens_per_step
        over_time = config.num_layers // 2
        share = 0.5 if causal else 1.0
        reach = float((config.num_layers - over_time) * cells)
        reach += share * (over_time * num_steps + config.inner_layers * cells)
        per_step = num_in_blocks(self.blocks)
        per_cell = 6 * (self.num_parameters(embeddings=False) - per_step) + 12 * config.dim * reach
        return num_clips * num_steps * (cells * per_cell + 6 * per_step)
