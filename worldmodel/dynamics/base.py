"""The base class of every world-model network: loss, scores and cost."""

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.layout import SequenceLayout
from worldmodel.dynamics.scores import TokenScores
from worldmodel.dynamics.shared_factors import fold_factors
from worldmodel.dynamics.text import TextContext


class Dynamics(nn.Module, ABC):
    """A network from tokens and actions to a distribution over the next token grid.

    `worldmodel.decoding.open_decoder` makes its decoder.

    Attributes:
        spec: describes the tokens.
        layout: order of tokens, actions and text in the sequence.
        num_actions: columns of the actions in the data; 0 for none.
        conditioned: whether the network reads actions.
        first_target_step: first time step whose tokens count in the loss.
        blocks: repeated layers; each is compiled, sharded and recomputed as a unit.
        recompute: whether the backward pass recomputes the activations of the blocks.
        independent_cells: whether the tokens of a frame are predicted independently of each other.
        predicts_actions: whether a decoder may sample actions from the model.
        state_steps: frames of a state, from which the model samples frames of the discounted
            future; 0: it predicts frame by frame, from any past.
        sample_steps: frames of such a sample.
        shardable: whether FSDP can train it.
        reads: further keyword arguments of `loss`, such as "noise".
    """

    config: DynamicsConfig
    spec: TokenSpec
    layout: SequenceLayout
    num_actions: int
    conditioned: bool
    first_target_step: int
    blocks: nn.ModuleList
    recompute: bool = False
    independent_cells: bool = False
    predicts_actions: bool = False
    state_steps: int = 0
    sample_steps: int = 1
    shardable: bool = True
    reads: tuple[str, ...] = ()

    def __init__(self, config: DynamicsConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__()
        self.config, self.spec, self.num_actions = config, spec, num_actions
        self.conditioned = config.layout.actions != "none"
        self.first_target_step = config.layout.first_target_step
        self.layout = SequenceLayout(config.layout, spec, num_actions)

    @property
    def reads_text(self) -> bool:
        """Whether the network reads captions."""
        return self.config.text_width > 0

    def check(self, tokens: Tensor, actions: Tensor | None, captions: TextContext | None) -> None:
        """BadInput unless a clip fits the model."""
        self.layout.check(tokens, actions)
        self.check_captions(captions, len(tokens))
        time, limit = tokens.shape[1], self.config.context_steps
        if not 1 <= time <= limit:
            raise BadInput(f"{time} frames, but the model sees 1 to {limit}; shorten the clips")

    def check_captions(self, captions: TextContext | None, batch: int) -> None:
        """BadInput unless captions are None or fit this network."""
        if captions is None:
            return
        if not self.reads_text:
            raise BadInput(
                f"captions: this {type(self).__name__} reads no captions; leave them out, or "
                "train one with model.text (docs/conditioning.md)"
            )
        captions.check(batch, self.config.text_tokens, self.config.text_width)

    def embed_actions(
        self,
        actions: Float[Tensor, "batch step action"],
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch step dim"]:
        """One vector per row of actions, or the learned "no action"."""
        raise NotImplementedError(type(self).__name__)

    def embed_newest(
        self,
        actions: Float[Tensor, "batch step action"],
        num_rows: int,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch 1 dim"]:
        """The vector of the newest row.

        Args:
            num_rows: rows of the context, the newest included; a difference reads no others.
        """
        read = min(num_rows, self.config.layout.rows_read)
        return self.embed_actions(actions[:, -read:], drop_actions)[:, -1:]

    def acting(
        self,
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
        num_steps: int,
    ) -> Float[Tensor, "batch time dim"] | None:
        """Embedded actions for the blocks, zeros for time step 0; None if blocks read none."""
        if actions is None or not self.config.layout.acts_in_blocks:
            return None
        return F.pad(self.embed_actions(actions[:, : num_steps - 1], drop_actions), (0, 0, 1, 0))

    @abstractmethod
    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """The training loss in nats per token.

        Args:
            actions: row t acts between frame t and t + 1; at least time - 1 rows.
            drop_actions: examples that read a learned "no action" instead of their actions.
            captions: captions of every time step; None for no captions.

        Raises:
            BadInput: wrong grid, wrong action width, captions that do not fit, or more frames
                than `context_steps`.
        """

    @abstractmethod
    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> TokenScores:
        """Scores of every frame given the frames before it; arguments and errors as in `loss`.

        A network that samples the tokens of a frame independently also scores them
        independently, given the past frames.
        """

    def mean_nats(self, scores: TokenScores) -> Float[Tensor, ""]:
        """Mean cross entropy per token of the frames that count."""
        return scores.nats[:, self.first_target_step :].mean()

    def after_step(self) -> None:
        """Called after every optimizer step of a training."""

    @abstractmethod
    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters; embeddings=False leaves out lookup tables."""

    @abstractmethod
    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """Floating-point operations of one training step, forward and backward.

        Args:
            causal: count only the unmasked part of attention.
        """

    def for_decoding(self) -> Self:
        """A frozen copy in eval mode, whose embeddings are plain tables."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        fold_factors(network)
        return network

    def fresh(self) -> "Dynamics":
        """A newly initialised network with the same config."""
        return type(self)(self.config, self.spec, self.num_actions)
