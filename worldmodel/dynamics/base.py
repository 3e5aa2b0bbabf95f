"""What every world model answers, whatever its network: losses, scores, its own cost."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.layout import SequenceLayout
from worldmodel.dynamics.text import TextContext


@dataclass(frozen=True)
class TokenScores:
    """How well the real tokens were predicted from the real past (fully teacher-forced).

    Attributes:
        nats: the cross entropy of every token.
        hits: whether the most probable token is the real one.
    """

    nats: Float[Tensor, "batch time space"]
    hits: Bool[Tensor, "batch time space"]


class Dynamics(nn.Module, ABC):
    """Tokens and actions in, a distribution over the next token grid out.

    Decoding is asked of `worldmodel.decoding.open_decoder`, which knows what each kind can do.

    Attributes:
        spec: what the tokens mean.
        layout: the grid and the actions that it reads.
        num_actions: columns of the actions in the data; 0 for none.
        conditioned: whether the network reads actions at all.
        first_target_step: first time step whose tokens count; frame 0 may have no past.
        blocks: the repeated layers, which are compiled, sharded and recomputed one by one.
        recompute: whether to compute the activations of the blocks again in the backward pass.
        predicts_actions: whether a decoder may leave actions to the model.
        reads: further keyword arguments that this kind's `loss` takes, such as "noise".
    """

    config: DynamicsConfig
    spec: TokenSpec
    layout: SequenceLayout
    num_actions: int
    conditioned: bool
    first_target_step: int
    blocks: nn.ModuleList
    recompute: bool = False
    predicts_actions: bool = False
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

    def check_captions(self, captions: TextContext | None, batch: int) -> None:
        """BadInput unless there are none, or they are such as this network reads."""
        if captions is None:
            return
        if not self.reads_text:
            raise BadInput(
                f"captions: this {type(self).__name__} reads no captions; leave them out, or "
                "train one with model.text (docs/conditioning.md)"
            )
        captions.check(batch, self.config.text_tokens, self.config.text_width)

    @abstractmethod
    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """What training minimises, in nats per token.

        Args:
            actions: row t is in force between frame t and t + 1; at least time - 1 rows.
            drop_actions: examples whose actions are all replaced by a learned "no action".
            captions: what is said at every time step; without it, nothing is.

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
        """How well every frame is predicted from the frames before it; same arguments and errors.

        Kinds that draw the tokens of a frame independently score them so: nats are then those
        of a product of distributions, given the past frames alone.
        """

    @abstractmethod
    def num_parameters(self, embeddings: bool = True) -> int:
        """Weights; without embeddings, those that only look up are left out."""

    @abstractmethod
    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """Floating-point operations of one training step, forward and backward.

        Args:
            causal: count only the part of attention that masks leave.
        """

    def fresh(self) -> "Dynamics":
        """Another network of the same shape, as it starts."""
        return type(self)(self.config, self.spec, self.num_actions)
