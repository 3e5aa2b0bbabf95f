"""The input of a GPT: ids, actions, captions and the previous frame as one sequence."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.actions.vector import ActionVector
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.gpt.heads import FactoredEmbedding, FactoredHead, check_factors
from worldmodel.dynamics.gpt.noise import ContextNoise
from worldmodel.dynamics.inputs import LookBack
from worldmodel.dynamics.positions import Rope, make_rope, sinusoid
from worldmodel.dynamics.shared_factors import share_factors
from worldmodel.dynamics.text import TextContext, TextPrefix


class SequenceInput(Dynamics):
    """The input side of a GPT: embeddings, look-back, positions.

    Raises:
        BadInput: the configuration does not fit the data, or a clip does not fit the model.
    """

    config: GPTConfig
    rope_cos: Tensor
    rope_sin: Tensor
    added: Tensor | None

    def __init__(self, config: GPTConfig, spec: TokenSpec, num_actions: int) -> None:
        if config.context_tokens and not config.context_dim:
            raise BadInput(
                f"context_tokens={config.context_tokens} needs a text encoder; give model.text, "
                "or set context_tokens=0"
            )
        super().__init__(config, spec, num_actions)
        self.num_positions = self.layout.sequence_length(config.context_steps)
        self.embed: nn.Embedding | FactoredEmbedding
        self.head: nn.Linear | FactoredHead
        self._make_ids()
        self._make_positions()
        if config.look_back:
            self.look_back = LookBack(config.dim, config.look_back)
        if config.layout.actions == "continuous":
            self.action = ActionVector(config.layout, num_actions, config.dim, spec.step_s)
        if config.layout.text_tokens:
            self.text = TextPrefix(config.layout.text_width, config.dim)
        self.noise = ContextNoise(config.noise_levels, config.dim)

    def _make_ids(self) -> None:
        """Make the embedding and the head."""
        config, vocab = self.config, self.layout.vocab_size
        num_ids = self.layout.num_ids + config.unused_ids
        self.num_head_ids = vocab if config.head_ids == "frame" else num_ids
        if config.factors:
            check_factors(config.factors, vocab)
            self.embed = FactoredEmbedding(config.factors, self.layout.num_ids, config.dim)
            self.head = FactoredHead(config.factors, config.dim)
            return
        self.embed = nn.Embedding(num_ids, config.dim)
        share_factors(self.embed, self.spec, config.share_factors)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.dim, self.num_head_ids, bias=False)

    def _make_positions(self) -> None:
        config = self.config
        if config.positions == "learned":
            self.position = nn.Embedding(self.num_positions, config.dim)
        elif config.positions == "factored":
            self.time_position = nn.Embedding(config.context_steps, config.dim)
            self.space_position = nn.Embedding(self.layout.step_length, config.dim)
        else:
            coordinates = self.layout.coordinates(config.context_steps)
            rope = make_rope(coordinates, config.head_dim, config.rope_theta, config.yarn)
            self.register_buffer("rope_cos", rope.cos, persistent=False)
            self.register_buffer("rope_sin", rope.sin, persistent=False)
            added = sinusoid(coordinates, config.dim) if config.sinusoid else None
            if added is not None:
                added[: self.layout.lead_length] = 0
            self.register_buffer("added", added, persistent=False)

    def embed_clip(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
        captions: TextContext | None = None,
        noise: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch position dim"]:
        """Input of the first block: ids, actions, text and learned positions."""
        self.check(tokens, actions, captions)
        time = tokens.shape[1]
        x = self.embed(self.layout.sequence_ids(tokens, actions, drop_actions))
        lead, x = x[:, : self.layout.lead_length], x[:, self.layout.lead_length :]
        space, added_noise = self.layout.tokens_per_step, None
        if noise is not None:
            x, added_noise = self.add_noise(x.unflatten(1, (time, -1)), noise)
        if self.config.layout.actions == "continuous":
            assert actions is not None
            later = self.embed_actions(actions[:, : time - 1], drop_actions)
            steps = x.unflatten(1, (time, -1))
            text, frames = steps[:, :, : self.layout.prefix_length - 1], steps[:, :, -space:]
            prefix = torch.cat([steps[:, :1, text.shape[2]], later.to(x.dtype)], dim=1)
            prefix = prefix[:, :, None]
            x = torch.cat([text, prefix, frames + prefix], dim=2).flatten(1, 2)
        if captions is not None and self.config.layout.text_tokens:
            text = self.embed_text(captions, 0, time).to(x.dtype)
            rest = x.unflatten(1, (time, -1))[:, :, text.shape[2] :]
            x = torch.cat([text, rest], dim=2).flatten(1, 2)
        if self.config.look_back:
            before = None if added_noise is None else added_noise[:, :-1].flatten(0, 1)
            hints = self.hints(tokens[:, :-1].flatten(0, 1), before)
            hints = hints.unflatten(0, (len(tokens), -1))
            # A position gets the hint of the cell it predicts; time step 0 has no previous frame.
            hints = F.pad(hints.to(x.dtype), (0, 0, self.layout.prefix_length - 1, 1, 1, 0))
            x = x + hints.flatten(1, 2)
        x = torch.cat([lead, x], dim=1) if lead.shape[1] else x
        if self.config.positions != "rope":
            x = x + self.learned_positions(torch.arange(x.shape[1], device=x.device))
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x

    def embed_actions(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """Prefixes of the "continuous" layout, without position embedding.

        They are also added to every frame token of their time step. So a token has the action
        in the first block and need not attend to it first.
        """
        nothing = self.embed(torch.full((), self.layout.no_action_id, device=actions.device))
        out: Tensor = self.action(actions, nothing, drop_actions)
        return out

    def embed_text(
        self, captions: TextContext, start: int, stop: int
    ) -> Float[Tensor, "batch step token dim"]:
        """Text tokens of time steps start .. stop - 1, without position embedding."""
        nothing = self.embed(torch.full((), self.layout.no_text_id, device=captions.index.device))
        out: Tensor = self.text(captions, start, stop, nothing)
        return out

    def text_context(self, captions: TextContext | None, batch: int) -> TextContext | None:
        """Captions for cross-attention, possibly empty; None for a model without it."""
        self.check_captions(captions, batch)
        if not self.config.context_dim:
            return None
        device = self.embed.weight.device
        return captions or TextContext.empty(batch, self.config.context_dim, device)

    def add_noise(
        self, steps: Float[Tensor, "batch time position dim"], noise: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch position dim"], Float[Tensor, "batch time space dim"]]:
        """Add noise and its level embedding to frame tokens; return embeddings and noise."""
        frames = steps[:, :, -self.layout.tokens_per_step :]
        drawn = self.noise.draw(frames, noise * frames.detach().std())
        noisy = frames + drawn + self.noise.level_embedding(noise)
        rest = steps[:, :, : self.layout.prefix_length]
        return torch.cat([rest, noisy], dim=2).flatten(1, 2), drawn

    def hints(
        self,
        frame: Int[Tensor, "batch height width"],
        noise: Float[Tensor, "batch space dim"] | None = None,
    ) -> Float[Tensor, "batch space dim"]:
        """The `look_back` input of every cell of the next frame: this frame around it."""
        cells = self.embed(frame)
        if noise is not None:
            cells = cells + noise.view_as(cells)
        around = self.look_back(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (cells + around).flatten(1, 2)

    def learned_positions(
        self, positions: Int[Tensor, " position"]
    ) -> Float[Tensor, "position dim"]:
        """Learned position embeddings."""
        if self.config.positions == "learned":
            return self.position(positions)
        step = self.layout.step_length
        return self.time_position(positions // step) + self.space_position(positions % step)

    def rope(self, start: int, stop: int) -> Rope | None:
        """RoPE of positions start .. stop - 1; None for learned positions."""
        if self.config.positions != "rope":
            return None
        return Rope(self.rope_cos, self.rope_sin, self.added).at(slice(start, stop))

    def step_rope(self, step: int) -> Rope | None:
        """RoPE of one time step, which may lie beyond the context."""
        if self.config.positions != "rope":
            return None
        first, length = self.layout.sequence_length(step), self.layout.step_length
        if step < self.config.context_steps:
            return self.rope(first, first + length)
        coordinates, config = self.layout.coordinates(1)[self.layout.lead_length :], self.config
        coordinates[:, 0] += step
        rope = make_rope(coordinates, config.head_dim, config.rope_theta, config.yarn)
        device = self.rope_cos.device
        return Rope(rope.cos.to(device), rope.sin.to(device))
