"""The masked world model: predicts masked tokens of a frame from the past and the other tokens.

This is ST-MaskGIT, GENIE of 1X (github.com/1x-technologies/1xgpt). A space-time transformer
(`worldmodel.dynamics.masked.space_time`) reads a clip whose later tokens are partly masked. It
predicts the masked tokens, and the factors of each, independently of each other.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from training.optimization.recompute import maybe_checkpoint
from worldmodel.dynamics.actions.vector import ActionVector
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.factors import Factors
from worldmodel.dynamics.inputs import LookBack
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.corruption import corrupt
from worldmodel.dynamics.masked.space_time import SpaceTimeBlock, TimeCache
from worldmodel.dynamics.mup import lr_multipliers
from worldmodel.dynamics.scores import TokenScores
from worldmodel.dynamics.text import TextContext, TextVector


class Masked(Dynamics):
    """Predicts the masked tokens of a clip from the other tokens and the actions.

    Raises:
        BadInput: the configuration does not fit the data, or a clip does not fit the model.
    """

    config: MaskedConfig
    independent_cells = True

    def __init__(self, config: MaskedConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__(config, spec, num_actions)
        self.factors = Factors(config.factors, spec.vocab_size)
        space = spec.tokens_per_step
        self.embeds = nn.ModuleList(nn.Embedding(size, config.dim) for size in self.factors.sizes)
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        self.position = nn.Parameter(torch.empty(config.context_steps, space, config.dim))
        if config.layout.actions == "binned":
            self.bins = nn.Embedding(self.layout.no_text_id - spec.vocab_size, config.dim)
        elif config.layout.actions == "continuous":
            self.action = ActionVector(config.layout, num_actions, config.dim, spec.step_s)
            self.no_action = nn.Parameter(torch.empty(config.dim))
        if self.reads_text:
            self.text = TextVector(config.text_width, config.dim)
        if config.look_back:
            self.look_back = LookBack(config.dim, config.look_back)
        self.blocks = nn.ModuleList(SpaceTimeBlock(config) for _ in range(config.num_layers))
        self.head = nn.Linear(config.dim, sum(self.factors.sizes))
        self.init_weights()

    def forward(
        self,
        factors: Int[Tensor, "batch time space factor"],
        masked: Bool[Tensor, "batch time space"] | None,
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, "batch time space logit"]:
        """Logits of the factors of every token, concatenated.

        Args:
            masked: hidden tokens; `factors` has no effect there. None predicts every frame fully
                masked, given the unmasked frames before it.
            captions: captions of every time step.
        """
        time = factors.shape[1]
        cells, mask = self.embed_cells(factors, masked), None
        acting = None
        if self.conditioned:
            assert actions is not None
            acting = self.embed_actions(actions[:, : time - 1], drop_actions)
        text = None if captions is None else self.text(captions, 0, time)
        x = self.prepare(cells, cells[:, :-1], acting, text, 0)
        if masked is None:
            hidden = self.mask_token.expand_as(cells)
            x = torch.cat([x, self.prepare(hidden, cells[:, :-1], acting, text, 0)], dim=1)
            mask = _past_and_self(time, x.device)
        for block in self.blocks:
            x = maybe_checkpoint(block, x, mask, recompute=self.recompute)
        return self.logits(x[:, -time:])

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the tokens masked by `corruption.corrupt`, in nats per token."""
        self.check(tokens, actions, captions)
        if tokens.shape[1] < 2:
            raise BadInput("1 frame; a masked model learns frames 1 and later: give 2 or more")
        real = self.factors.split(tokens.flatten(2))
        shown, masked = corrupt(real, self.factors.sizes, self.config)
        logits = self(shown, masked, actions, drop_actions, captions)
        return self.factors.token_nll(logits, real)[masked].mean()

    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> TokenScores:
        """Temporally teacher-forced: a fully masked frame given the real past.

        As genie/evaluate.py of 1X with the logits of the first pass, but for all frames at once.
        Cells and factors are scored independently.
        """
        self.check(tokens, actions, captions)
        real = self.factors.split(tokens.flatten(2))
        logits = self(real, None, actions, drop_actions, captions)
        return self.factors.score(logits, real)

    def embed_cells(
        self,
        factors: Int[Tensor, "batch time space factor"],
        masked: Bool[Tensor, "batch time space"] | None,
    ) -> Float[Tensor, "batch time space dim"]:
        """Sum of the factor embeddings, or the mask token."""
        parts = [embed(factors[..., k]) for k, embed in enumerate(self.embeds)]
        x = torch.stack(parts).sum(0)
        return x if masked is None else torch.where(masked[..., None], self.mask_token, x)

    def prepare(
        self,
        cells: Float[Tensor, "batch time space dim"],
        before: Float[Tensor, "batch past space dim"],
        acting: Float[Tensor, "batch past dim"] | None,
        text: Float[Tensor, "batch time 1 dim"] | None,
        start: int,
    ) -> Float[Tensor, "batch time space dim"]:
        """Input of the first block: cells, positions, captions, actions, previous frame.

        Args:
            before, acting: previous frame and action of every frame, without time step 0.
            text: caption vector of every frame.
            start: time step of the first frame.
        """
        config = self.config
        x = cells + self.position[start : start + cells.shape[1]]
        if text is not None:
            x = x + text.to(x.dtype)
        missing = (0, 0, 0, 0, cells.shape[1] - before.shape[1], 0)
        if acting is not None:
            x = x + F.pad(acting[:, :, None].to(x.dtype), missing)
        if config.look_back and before.shape[1]:
            grid = (self.layout.height, self.layout.width)
            image = before.flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)
            hints = self.look_back(image).flatten(2).transpose(1, 2)
            x = x + F.pad(before + hints.view(before.shape), missing)
        return F.dropout(x, config.dropout, self.training) if config.dropout else x

    def embed_actions(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        if self.config.layout.actions == "binned":
            ids = self.layout.action_ids(actions, drop_actions) - self.spec.vocab_size
            return self.bins(ids).sum(2)
        out: Tensor = self.action(actions, self.no_action, drop_actions)
        return out

    def read(
        self, x: Float[Tensor, "batch time space dim"], cache: TimeCache
    ) -> Float[Tensor, "batch time space dim"]:
        """Run new frames through all blocks and append them to the cache."""
        for layer, block in enumerate(self.blocks):
            x = block(x, None, cache, layer)
        return x

    def logits(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape logit"]:
        return self.head(x * self.config.width_ratio)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every parameter; nothing else does.

        | parameter                                        | start                          |
        |--------------------------------------------------|--------------------------------|
        | embeddings of factors and of binned actions      | normal, std 1                  |
        | linear and convolution: weights, biases          | uniform within 1/sqrt(inputs)  |
        | norms: weights, biases                           | 1, 0                           |
        | positions, mask token, no action                 | 0                              |

        As published: torch's own, and zeros. Uniform starts shrink with the width as width
        transfer asks; the head's must not, and is multiplied by sqrt(dim / mup_base_width).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding | nn.LayerNorm):
                module.reset_parameters()
        self.head.weight.mul_(self.config.width_ratio**-0.5)
        for name, parameter in self.named_parameters(recurse=False):
            assert name in ("position", "mask_token", "no_action")
            parameter.zero_()

    def lr_multipliers(self) -> dict[str, float]:
        """Learning rate of every parameter as a multiple of `optimizer.lr`."""
        return lr_multipliers(self)

    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters; embeddings=False leaves out lookups and positions."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        looked_up: list[Tensor] = [*self.embeds.parameters(), self.position, self.mask_token]
        if self.config.layout.actions == "binned":
            looked_up += [self.bins.weight]
        elif self.conditioned:
            looked_up += [self.no_action]
        return total - sum(p.numel() for p in looked_up)

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """6 N + 12 L d (S + T) per token: S cells of a frame, and T steps or half of them.

        N = `num_parameters(embeddings=False)`, L layers of width d; counted as in PaLM (arXiv
        2204.02311, appendix B), with both attentions.
        """
        space = self.spec.tokens_per_step
        keys = space + num_steps / (2 if causal else 1)
        attention = 12 * self.config.num_layers * self.config.dim * keys
        tokens = num_clips * num_steps * space
        return tokens * (6 * self.num_parameters(embeddings=False) + attention)


def _past_and_self(time: int, device: torch.device) -> Bool[Tensor, "both past"]:
    """Mask of two clips: a frame of the second sees itself and earlier frames of the first."""
    past, alone = torch.ones(time, time, device=device).tril(), torch.eye(time, device=device)
    rows = [[past, torch.zeros_like(past)], [past - alone, alone]]
    return torch.cat([torch.cat(row, dim=1) for row in rows]).bool()
