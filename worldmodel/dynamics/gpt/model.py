"""A GPT over token grids and actions: the autoregressive world model.

`GPTConfig` ranges from GPT-2 (Radford et al. 2019) to Llama (arXiv 2302.13971). `layout` has the
order of the sequence, `input` the embeddings, `blocks` the block, `heads` the output.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from training.optimization.recompute import maybe_checkpoint
from worldmodel.dynamics.actions.layers import num_in_blocks, start_std
from worldmodel.dynamics.attention import linear
from worldmodel.dynamics.gpt.action_head import ActionHead
from worldmodel.dynamics.gpt.blocks import Block, make_norm
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.gpt.heads import (
    LARGE_VOCABULARY,
    FactoredHead,
    chunked_token_nll,
    guesses_in_chunks,
    token_nll,
)
from worldmodel.dynamics.gpt.input import SequenceInput
from worldmodel.dynamics.mup import lr_multipliers, multiples
from worldmodel.dynamics.scores import Guesses, TokenScores
from worldmodel.dynamics.text import TextContext

__all__ = ["GPT", "Block", "GPTConfig"]


class GPT(SequenceInput):
    """Predicts every frame token from all earlier tokens and actions.

    Raises:
        BadInput: the configuration does not fit the data, or a clip does not fit the model.
    """

    reads = ("context", "noise")

    def __init__(self, config: GPTConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__(config, spec, num_actions)
        self.predicts_actions = config.layout.predict_actions > 0
        if self.predicts_actions:
            self.action_head = ActionHead(num_actions, config.layout.num_bins, config.dim)
        # The first frame token that counts in the loss.
        self.first_token = self.first_target_step * self.layout.tokens_per_step
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.norm = make_norm(config)
        self.init_weights()

    def forward(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
        noise: Float[Tensor, " batch"] | None = None,
        head_fn: Callable[[Tensor, Tensor], Any] | None = None,
    ) -> Any:
        """Logits [batch time space vocab] of every frame token given everything before it.

        Args:
            actions: row t acts between frame t and t + 1; at least time - 1 rows.
            drop_actions: examples that read a learned "no action" instead of their actions.
            captions: captions of every time step. Without one, text positions hold a learned
                vector, and cross-attention reads zeros.
            noise: standard deviation of the noise on the frame tokens of every example, in
                standard deviations of the embeddings.
            head_fn: computes the return value from the hidden states of the frame tokens and
                of all positions; called inside forward, because FSDP gathers the head only
                there.
        Raises:
            BadInput: wrong grid, wrong action width, captions that do not fit, or more frames
                than `context_steps`.
        """
        # The last token predicts nothing. A view would have the first block compiled on its own.
        x = self.embed_clip(tokens, actions, drop_actions, captions, noise)[:, :-1].contiguous()
        acting = self.acting(actions, drop_actions, tokens.shape[1])
        states = self.run(x, captions, acting)
        positions = self.layout.predicting_positions(tokens.shape[1], states.device)
        x = states.index_select(1, positions.flatten().clamp(min=0))
        if head_fn is not None:
            return head_fn(x, states)
        logits = self.logits(x)
        if not self.layout.predicts_first:
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1)
        return logits.unflatten(1, (tokens.shape[1], -1))

    def run(
        self,
        x: Float[Tensor, "batch position dim"],
        captions: TextContext | None = None,
        acting: Float[Tensor, "batch time dim"] | None = None,
    ) -> Float[Tensor, "batch position dim"]:
        """Run all blocks over a sequence from its first position on."""
        context, length = self.text_context(captions, len(x)), self.layout.step_length
        lead = self.layout.lead_length
        text = context and context.text(0, max(1, -(-(x.shape[1] - lead) // length)), length, lead)
        rope = self.rope(0, x.shape[1])
        for block in self.blocks:
            x = maybe_checkpoint(block, x, rope, None, 0, text, acting, recompute=self.recompute)
        return x

    def sequence_logits(
        self, ids: Int[Tensor, "batch position"], captions: TextContext | None = None
    ) -> Float[Tensor, "batch position id"]:
        """Logits of all head ids after every position of a given id sequence.

        Raises:
            BadInput: the network reads more than ids, or the sequence exceeds its context.
        """
        if self.config.look_back or self.config.layout.actions == "continuous":
            raise BadInput(
                "sequence_logits needs look_back=0 and layout.actions other than continuous; "
                "call the model with tokens and actions"
            )
        if ids.shape[1] > self.num_positions:
            raise BadInput(
                f"{ids.shape[1]} ids, but the model sees {self.num_positions}; give fewer"
            )
        x = self.embed(ids)
        if self.config.positions != "rope":
            x = x + self.learned_positions(torch.arange(ids.shape[1], device=ids.device))
        return self._all_logits(self.run(x, captions))

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
        context: Int[Tensor, "batch time height width"] | None = None,
        noise: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the frame tokens that count, plus the weighted one of actions.

        Args:
            context: read instead of `tokens`; the targets stay `tokens`.
            captions, noise: see `forward`.
        """
        first = self.first_token
        targets = tokens.flatten(1)[:, first:]

        def mean_loss(x: Tensor, states: Tensor) -> Tensor:
            loss = self._token_nll(x[:, first:], targets).mean()
            if not self.predicts_actions or actions is None:
                return loss
            weight = self.config.layout.predict_actions
            return loss + weight * self._action_nll(states, actions, drop_actions)

        read = tokens if context is None else context
        return self(read, actions, drop_actions, captions, noise, mean_loss)

    def _action_nll(
        self, states: Tensor, actions: Tensor, drop_actions: Tensor | None
    ) -> Float[Tensor, ""]:
        time = (states.shape[1] + 1) // self.layout.step_length
        positions = self.layout.action_predicting_positions(time, states.device)
        bins = self.layout.action_bins(actions[:, : time - 1])
        return self.action_head.nll(self._normed(states[:, positions]), bins, drop_actions)

    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> TokenScores:
        """Exact: every token given all earlier tokens, its own frame included."""
        targets, vocab = tokens.flatten(1), self.spec.vocab_size

        def nll_and_guesses(x: Tensor, states: Tensor) -> tuple[Tensor, Guesses]:
            flat = x.flatten(0, 1)
            return self._token_nll(x, targets), guesses_in_chunks(self.logits, flat, targets, vocab)

        nll, best = self(tokens, actions, drop_actions, captions, head_fn=nll_and_guesses)
        right, confidence, rank = best.correct, best.confidence, best.rank
        if not self.layout.predicts_first:
            first = torch.arange(targets.shape[1], device=nll.device) == 0
            nll, right = nll.masked_fill(first, math.log(vocab)), right & ~first
            confidence, rank = (
                confidence.masked_fill(first, 1 / vocab),
                rank.masked_fill(first, vocab),
            )
        shape = (*tokens.shape[:2], self.layout.tokens_per_step)
        return TokenScores(*(part.view(shape) for part in (nll, right, confidence, rank)))

    def _token_nll(
        self, x: Float[Tensor, "batch token dim"], targets: Int[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token"]:
        """Cross entropy of frame tokens; a large vocabulary goes in chunks."""
        flat, wanted = self._normed(x).flatten(0, 1), targets.flatten()
        if self.config.factors:
            assert isinstance(self.head, FactoredHead)
            return self.head.token_nll(flat, wanted).view(targets.shape)
        vocab = self.layout.vocab_size
        rows = self.embed.weight if self.config.tie_embeddings else self.head.weight
        assert isinstance(rows, Tensor)
        rows = rows[:vocab]
        nll = chunked_token_nll if vocab >= LARGE_VOCABULARY else token_nll
        return nll(flat, rows, wanted).view(targets.shape)

    def logits(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape vocab"]:
        """Final norm and head, over the frame vocabulary; normalised from a factorised head."""
        return self._all_logits(x)[..., : self.layout.vocab_size]

    def _all_logits(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape id"]:
        x = self._normed(x)
        if self.config.tie_embeddings:
            return F.linear(x, self.embed.weight[: self.num_head_ids])
        return self.head(x) if isinstance(self.head, FactoredHead) else linear(self.head, x)

    def _normed(self, x: Tensor) -> Tensor:
        return self.norm(x) * (self.config.width_ratio * self.config.output_scale)

    def action_logits(
        self, state: Float[Tensor, "row 1 dim"], column: int
    ) -> Float[Tensor, "row bin"]:
        """Logits of the bins of an action column, from the hidden state before it."""
        return self.action_head.column(self._normed(state), column)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; nothing else does.

        | parameter                                   | start                                |
        |---------------------------------------------|--------------------------------------|
        | embeddings (ids, learned positions, factors)| normal, std 0.02                     |
        | linear weights (qkv, up, gate, action, text)| normal, std 0.02                     |
        | heads, noise levels ("none" stays 0)        | normal, std 0.02                     |
        | actions in blocks, "adaln"                  | 0                                    |
        | look_back                                   | normal, std 0.5 / sqrt(inputs)       |
        | residual projections (attention.proj, down) | normal, std 0.02 / sqrt(2 layers)    |
        | norm weights                                | 1                                    |
        | biases                                      | 0                                    |

        Source: GPT-2 (Radford et al. 2019, section 2.3). `mup_base_width` multiplies some
        stds (`worldmodel.dynamics.mup`).
        """
        scales = multiples(self)
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
                nn.init.normal_(parameter, std=start_std(name, self.config.layout, 0.02))
            if name == "noise.level.weight":
                parameter[0] = 0
            if name != "look_back.weight":
                parameter.mul_(scales[name].start)

    def lr_multipliers(self) -> dict[str, float]:
        """Learning rate of every parameter as a multiple of `optimizer.lr`."""
        return lr_multipliers(self)

    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters; embeddings=False leaves out lookups and positions.

        The rows of a tied head always count, because they multiply.
        """
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        lookups = [m for m in self.modules() if isinstance(m, nn.Embedding)]
        total -= sum(m.num_embeddings * m.embedding_dim for m in lookups)
        if self.config.tie_embeddings:
            total += self.layout.vocab_size * self.config.dim
        return total

    def flops_per_token(self, num_steps: int, causal: bool = False) -> float:
        """Floating-point operations of one training step (forward and backward) per position.

        6 N + 12 L d T, with N = `num_parameters(embeddings=False)`, L layers whose heads have d
        channels in total (without cross-attention), and T positions in the sequence (PaLM, arXiv
        2204.02311, appendix B). `causal=True` counts only the unmasked half of the attention.
        Prefix positions count as tokens. Weights of actions in blocks count per time step.
        """
        width = self.config.num_heads * self.config.head_dim
        attention = 12 * self.config.num_layers * width * self.layout.sequence_length(num_steps)
        weights = float(self.num_parameters(embeddings=False))
        weights -= num_in_blocks(self.blocks) * (1 - 1 / self.layout.step_length)
        return 6 * weights + attention / (2 if causal else 1)

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        positions = num_clips * self.layout.sequence_length(num_steps)
        return positions * self.flops_per_token(num_steps, causal)
