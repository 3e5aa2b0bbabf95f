"""Base of all decoders: read a prompt, then extend it frame by frame."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from training.errors import BadInput
from training.ranges import at_least, within
from worldmodel.decoding.config import Guidance, Sampling
from worldmodel.decoding.guidance import guide
from worldmodel.decoding.sampling import entropy, sample
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.masked.space_time import TimeCache
from worldmodel.dynamics.text import TextContext

# Picks the tokens of some cells of the open frame from their logits [row cell vocab].
Choose = Callable[[Tensor, slice | Tensor], Tensor]
# Yields the logits of some cells, is sent their tokens, and returns the frame's.
Cells = Generator[tuple[Tensor, slice], Tensor, Tensor]


class FrameDecoder(ABC):
    """Futures that are extended frame by frame; `rollout` does it in one call."""

    @abstractmethod
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """Read the prompt and open `num_futures` futures per example, example-major.

        Args:
            captions: captions of every time step, future ones included.
        Raises:
            BadInput: the prompt is empty, exceeds the context or has a wrong shape; captions do
                not fit the model; the negative prompt is not encoded.
        """

    @abstractmethod
    def next_frame(
        self, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "future height width"]:
        """Sample the next frame, given the action that leads to it."""


class RowDecoder(FrameDecoder):
    """Base of decoders with one row of frames per future.

    With guidance a future has two rows: all conditioned rows, then all unconditioned ones.
    `guided` combines their logits, and `both` repeats a sample for both.

    Attributes:
        slide_steps: frames that leave a full context at once.
        tokens, actions, drop_actions, captions: all frames so far and their conditions, by row;
            actions are None if the model reads none.
        guidance: None if off.
        futures_each: futures of every example.
        generator: draws the uniform numbers of sampling, on the CPU.
        new_cache: class of the KV cache.
        measures_entropy: whether `next_frame` leaves the entropy (nats) of every cell behind, of
            the distribution that it was drawn from, before temperature, top_k and top_p.

    Raises:
        BadInput: slide_steps is not in 1 .. context_steps - 1, or the model does not read the
            condition of guidance.
    """

    model: Dynamics
    tokens: Int[Tensor, "row time height width"]
    actions: Float[Tensor, "row step action"] | None
    drop_actions: Bool[Tensor, " row"] | None
    captions: TextContext | None
    cache: KVCache | TimeCache
    new_cache: type[KVCache] = KVCache
    measures_entropy: bool = False
    _drawn_from: Float[Tensor, "future space vocab"] | None  # logits, where entropy is measured

    def __init__(
        self,
        model: Dynamics,
        sampling: Sampling | None,
        slide_steps: int | None,
        own_choice: int | None = None,
    ) -> None:
        context_steps = model.config.context_steps
        own_choice = own_choice or max(1, context_steps // 4)
        self.slide_steps = own_choice if slide_steps is None else slide_steps
        within(1, context_steps - 1, slide_steps=self.slide_steps)
        self.model, self.layout, self.context_steps = model, model.layout, context_steps
        self.sampling = sampling or Sampling()
        self.guidance = self.sampling.guidance if self.sampling.guided else None
        if self.guidance is not None:
            self.guidance.check(model.conditioned, model.reads_text)
        self.generator = torch.Generator().manual_seed(self.sampling.seed)

    @torch.inference_mode()
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """As `FrameDecoder.start`."""
        limit, time = self.context_steps, tokens.shape[1]
        if not 1 <= time <= limit:
            raise BadInput(f"a prompt of {time} frames; the model reads 1 to {limit}: shorten it")
        at_least(1, num_futures=num_futures)
        self.layout.check(tokens, actions)
        self.model.check_captions(captions, len(tokens))
        self.tokens, self.actions, self.drop_actions = tokens, None, drop_actions
        self.captions, self.prompt_steps, self.futures_each = captions, time, 1
        if self.model.conditioned and actions is not None:
            self.actions = actions[:, : time - 1]
        if self.guidance is not None:
            self._pair(self.guidance)
        self.read_prompt()
        if num_futures > 1:
            self.repeat(num_futures)

    def read_prompt(self) -> None:
        """Fill the cache from the prompt."""
        self.read(self.prompt_steps)

    @abstractmethod
    def read(self, num_steps: int) -> None:
        """Fill a fresh `cache` from the newest `num_steps` frames."""

    @abstractmethod
    def predict(self, action: Float[Tensor, "future action"] | None = None) -> Cells:
        """Append a frame: yields logits [row cell vocab] of its next cells, is sent their tokens.

        Returns:
            The tokens [row height width] of the frame.
        """

    @torch.inference_mode()
    def extend(
        self, choose: Choose, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Append a frame; `choose` picks its tokens."""
        return answered(self.predict(action), choose)

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "future height width"]:
        """Sample the next frame, given the action that leads to it."""
        self._draw_uniform()
        return self.extend(self.draw, action)[: self.num_futures]

    def draw(
        self, logits: Float[Tensor, "row cell vocab"], cells: slice | Tensor
    ) -> Int[Tensor, "row cell"]:
        """Sample some cells of the open frame, each with its uniform number."""
        logits, uniform = self.guided(logits, cells), self._uniform[:, cells].flatten()
        if self.measures_entropy:
            if self._drawn_from is None:
                shape = len(logits), self.layout.tokens_per_step, logits.shape[-1]
                self._drawn_from = logits.new_empty(shape)
            self._drawn_from[:, cells] = logits
        drawn = self.choose(logits.flatten(0, 1), uniform)
        return self.both(drawn.view(logits.shape[:2]))

    def choose(
        self, logits: Float[Tensor, "row vocab"], uniform: Float[Tensor, " row"]
    ) -> Int[Tensor, " row"]:
        """One token per row."""
        return sample(logits, self.sampling, uniform)

    @torch.inference_mode()
    def score_next(
        self,
        frame: Int[Tensor, "future height width"],
        action: Float[Tensor, "future action"] | None = None,
    ) -> Float[Tensor, "future space"]:
        """Cross entropy (nats) of a real frame under this decoder; then append that frame.

        It includes approximations: the cost of an approximate decoder is the difference to an
        exact one.
        """
        real = frame.flatten(1)
        nll = torch.empty(real.shape, device=real.device)

        def score(logits: Tensor, cells: slice | Tensor) -> Tensor:
            logits = self.guided(logits, cells).mT.float()
            nll[:, cells] = F.cross_entropy(logits, real[:, cells], reduction="none")
            return self.both(real[:, cells])

        self._draw_uniform()  # a draft may use them
        self.extend(score, action)
        return nll

    def _draw_uniform(self) -> None:
        """Draw the uniform number that decides each token of the next frame."""
        self._uniform, self._drawn_from = self.chances(self.layout.tokens_per_step).T, None

    def chances(self, *before: int, after: tuple[int, ...] = ()) -> Float[Tensor, "*number"]:
        """Uniform numbers [*before future *after] of all futures; see `Sampling.common`."""
        each = self.futures_each if self.sampling.common else self.num_futures
        drawn = torch.rand(*before, each, *after, generator=self.generator)
        rows = torch.arange(self.num_futures) % each
        return drawn.index_select(len(before), rows).to(self.tokens.device)

    @property
    def entropy(self) -> Float[Tensor, "future space"]:
        """Of the newest frame; all cells at once, because a cell alone costs as much."""
        assert self._drawn_from is not None
        return entropy(self._drawn_from)

    def _pair(self, guidance: Guidance) -> None:
        """Add an unconditioned copy of every row, for guidance."""
        captions = self.captions
        if guidance.negative and (captions is None or captions.negative < 0):
            raise BadInput(
                f"guidance.negative={guidance.negative!r} needs its embedding; encode it with the "
                "captions (Texts.embed (worldmodel.conditioning.text_encoders))"
            )
        self.captions = captions and captions.paired(guidance.weakens("text"))
        drop = self.drop_actions
        if drop is None:
            drop = torch.zeros(len(self.tokens), dtype=torch.bool, device=self.tokens.device)
        self.drop_actions = torch.cat([drop, drop | guidance.weakens("actions")])
        self.tokens = self.both(self.tokens)
        self.actions = None if self.actions is None else self.both(self.actions)
        shares = token_shares(guidance, self.layout.tokens_per_step)
        self._shares = shares.to(self.tokens.device)

    def repeat(self, num_futures: int) -> None:
        """Repeat every row `num_futures` times, example-major."""
        self.futures_each *= num_futures
        self.cache = self._cache_for(num_futures)
        self.tokens = self.tokens.repeat_interleave(num_futures, dim=0)
        if self.actions is not None:
            self.actions = self.actions.repeat_interleave(num_futures, dim=0)
        if self.drop_actions is not None:
            self.drop_actions = self.drop_actions.repeat_interleave(num_futures, dim=0)
        self.captions = self.captions and self.captions.repeat(num_futures)

    def _cache_for(self, num_futures: int) -> KVCache | TimeCache:
        """The cache of so many futures per row."""
        return self.cache.expand(num_futures)

    @property
    def frames_read(self) -> int:
        """Newest frames that the next one depends on: a prompt of these continues alike.

        With window=roll the cache holds traces of older ones, so there it continues otherwise.
        """
        return self.cache.length

    @property
    def num_futures(self) -> int:
        """Number of futures of all examples."""
        return len(self.tokens) // (1 if self.guidance is None else 2)

    def guided(
        self, logits: Float[Tensor, "row cell vocab"], cells: slice | Tensor
    ) -> Float[Tensor, "future cell vocab"]:
        """Logits for sampling some cells of the next frame."""
        if self.guidance is None:
            return logits
        level = self.guidance.level(self.tokens.shape[1] - self.prompt_steps)
        conditioned, other = logits.chunk(2)
        return guide(conditioned, other, level * self._shares[cells])

    def both(self, x: Shaped[Tensor, "future *rest"]) -> Shaped[Tensor, "row *rest"]:
        """Repeat `x` for both rows of every future under guidance."""
        return x if self.guidance is None else torch.cat([x, x])

    def check_action(self, action: Float[Tensor, "future action"] | None) -> None:
        """BadInput if the model reads actions and a future has none."""
        needed = (self.num_futures, self.layout.num_actions)
        given = None if action is None else tuple(action.shape)
        if self.actions is not None and given != needed:
            raise BadInput(f"next_frame needs actions {list(needed)}, got {given}")

    def join(self, action: Float[Tensor, "future action"] | None) -> None:
        """Store the action of the next frame, if the model reads actions."""
        if self.actions is not None and action is not None:
            self.actions = torch.cat([self.actions, self.both(action)[:, None]], dim=1)


def answered(cells: Cells, choose: Choose) -> Tensor:
    """The return value of `cells`, whose tokens `choose` picks."""
    try:
        logits, which = next(cells)
        while True:
            logits, which = cells.send(choose(logits, which))
    except StopIteration as end:
        frame: Tensor = end.value
        return frame


def token_shares(guidance: Guidance, num_tokens: int) -> Float[Tensor, " token"]:
    """Share of the level at every token of a frame."""
    return torch.linspace(1, guidance.last_token_share, num_tokens)
