"""The session of dreams: started from clips, driven step by step, taken back and branched.

Several dreams share one decoder and one batch. A dream driven with the actions of a rollout has its
frames: `Dream` and `rollout` ask the same decoder, with the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tokenizer.load import Tokenizer
from training.errors import BadInput
from training.ranges import at_least, within
from worldmodel.conditioning.text_encoders import Captions
from worldmodel.decoding import Sampling
from worldmodel.decoding.base import RowDecoder
from worldmodel.decoding.occupancy import ONE_FRAME
from worldmodel.decoding.rollout import open_decoder
from worldmodel.dynamics.text import TextContext
from worldmodel.env.pixels import DreamPixels
from worldmodel.env.starts import Start
from worldmodel.load import WorldModel
from worldmodel.video_decoder.decoder import TokenVideoDecoder


@dataclass(frozen=True)
class DreamStep:
    """What one step of all dreams gave.

    Attributes:
        tokens: the new grids.
        entropy: nats of the distribution that each token was drawn from.
        actions: what led here; None if the model reads none.
    """

    tokens: Int[Tensor, "dream height width"]
    entropy: Float[Tensor, "dream height width"]
    actions: Float[Tensor, "dream action"] | None


@dataclass(frozen=True)
class _Before:
    """What a decoder held before it drew a step: how much it read, and its random numbers."""

    frames_read: int
    numbers: Tensor


class Dream:
    """Dreams of one world model, of any kind that predicts frame by frame.

    Args:
        tokenizer: of the tokens; without one there are tokens and no frames.
        sampling: how tokens are sampled; its seed is that of a start without one.
        video: makes the frames in place of an image tokenizer's own decoder.
        decoding: method and options of `open_decoder`.

    Attributes:
        grids: all grids so far by time step, the prompt's first.
        actions: row t leads to grid t + 1; empty if the model reads none.
        steps: what every imagined step gave.
        prompt_steps: grids of the prompt.
        seed: of the newest start.

    Raises:
        BadInput: a model that predicts no video, or a method that it cannot be decoded by.
    """

    grids: list[Int[Tensor, "dream height width"]]
    actions: list[Float[Tensor, "dream action"]]
    steps: list[DreamStep]

    def __init__(
        self,
        model: WorldModel,
        tokenizer: Tokenizer | None = None,
        sampling: Sampling | None = None,
        device: str = "cpu",
        video: TokenVideoDecoder | None = None,
        **decoding: Any,
    ) -> None:
        if model.network.state_steps:
            raise BadInput(f"ckpt={model.path}: {ONE_FRAME}")
        self.model, self.device = model, device
        self.sampling = sampling or Sampling()
        self.network = model.network.to(device)
        decoder = open_decoder(self.network, self.sampling, **decoding)
        assert isinstance(decoder, RowDecoder)
        self.decoder = decoder
        self.decoder.measures_entropy = True
        self.acted, self.texts = self.network.conditioned, model.texts()
        shown = video and video.to(device)
        self.pixels = DreamPixels(tokenizer.to(device), shown) if tokenizer else None
        self.grids, self.steps = [], []

    @property
    def num_dreams(self) -> int:
        return len(self.grids[0])

    @property
    def num_imagined(self) -> int:
        return len(self.steps)

    @property
    def newest_actions(self) -> Float[Tensor, "dream action"]:
        """What led to the newest grids; before anything did, what was driven in the clips."""
        if self.actions:
            return self.actions[-1]
        return torch.stack([torch.from_numpy(start.last_action) for start in self.starts])

    def start(self, starts: Sequence[Start], seed: int | None = None) -> None:
        """Begin a dream from each of these clips, which are equally long.

        Raises:
            BadInput: no clip, or a prompt that the model cannot read.
        """
        if not starts:
            raise BadInput("a dream needs a clip to begin with; give at least one")
        self.starts = list(starts)
        self.grids = list(torch.stack([s.tokens for s in starts]).to(self.device).unbind(1))
        self.prompt_steps = len(self.grids)
        self.actions = []
        if self.acted:
            rows = torch.stack([s.actions[: self.prompt_steps - 1] for s in starts])
            self.actions = list(rows.to(self.device).unbind(1))
        # One more than grids: the last is that of the next.
        self.captions = [[s.caption for s in starts]] * (self.prompt_steps + 1)
        self.steps = []
        self._before: list[_Before] = []
        self.seed = self.sampling.seed if seed is None else seed
        self.decoder.generator.manual_seed(self.seed)
        self._open(self.prompt_steps)

    def step(self, actions: Float[Tensor, "dream action"] | None = None) -> DreamStep:
        """The next grid of every dream, given the actions that lead to it.

        A model that predicts actions imagines those that are not given; one that reads none ignores
        them.

        Raises:
            BadInput: actions of another shape, or not finite; nothing has changed then.
        """
        given = self._checked(actions) if self.acted and actions is not None else None
        before = _Before(self.decoder.frames_read, self.decoder.generator.get_state())
        try:
            grid = self.decoder.next_frame(given)
        except BadInput:  # as if nothing had been asked
            self.decoder.generator.set_state(before.numbers)
            raise
        self._before.append(before)
        if self.acted:
            assert self.decoder.actions is not None
            # A view would keep all the rows of every step alive.
            given = self.decoder.actions[: self.num_dreams, -1].clone()
            self.actions.append(given)
        self.captions.append(self.captions[-1])
        self.grids.append(grid)
        entropy = self.decoder.entropy.view(grid.shape)
        self.steps.append(DreamStep(grid, entropy, given))
        return self.steps[-1]

    def frames(self) -> UInt8[Tensor, "dream frame 3 h w"]:
        """Frames of the newest grid of every dream.

        Raises:
            BadInput: the tokens have no tokenizer, or one without a way back to pixels.
        """
        if self.pixels is None:
            raise BadInput(
                f"ckpt={self.model.path}: frames need the tokenizer of its tokens; give "
                "tokenizer=FOLDER"
            )
        return self.pixels.newest(self.grids, [start.lead for start in self.starts])

    def rewind(self, num_steps: int, seed: int | None = None) -> None:
        """Take back the newest steps; the same actions then give the same frames again.

        That holds while there are as many dreams as when the steps were taken (not across `branch`
        and `keep`), and for window=slide: with roll a cache remembers more than is read again.

        Args:
            seed: go on with other random numbers instead.

        Raises:
            BadInput: fewer steps have been imagined.
        """
        if not self.steps:
            raise BadInput(f"rewind={num_steps}: nothing has been imagined yet")
        within(1, self.num_imagined, rewind=num_steps)
        before = self._before[-num_steps]
        for kept in (self.grids, self.captions, self.steps, self._before):
            del kept[-num_steps:]
        if self.acted:
            del self.actions[-num_steps:]
        self.decoder.generator.set_state(before.numbers)
        if seed is not None:
            self.decoder.generator.manual_seed(seed)
        self._open(before.frames_read)

    def branch(self, num: int) -> None:
        """Every dream becomes `num` dreams that go on from here, side by side."""
        at_least(1, num=num)
        self.keep([dream for dream in range(self.num_dreams) for _ in range(num)])

    def keep(self, dreams: Sequence[int]) -> None:
        """Go on with these dreams, by number; one may be named several times.

        Raises:
            BadInput: no dream, or a number that none has.
        """
        if not dreams:
            raise BadInput("keep=[]: no dream is left; name at least one")
        within(0, self.num_dreams - 1, keep=list(dreams))
        rows = torch.tensor(list(dreams), device=self.device)
        self.starts = [self.starts[dream] for dream in dreams]
        self.grids = [grid[rows] for grid in self.grids]
        self.actions = [row[rows] for row in self.actions]
        self.captions = [[texts[dream] for dream in dreams] for texts in self.captions]
        self.steps = [_chosen(step, rows) for step in self.steps]
        self._open(self.decoder.frames_read)

    def restart(self, dreams: Sequence[int], starts: Sequence[Start]) -> None:
        """Begin some dreams anew beside the others, which go on.

        The others then read no more frames than a prompt has, so prompts as long as the context
        disturb them least. Nothing before this can be taken back.

        Raises:
            BadInput: prompts of another length, or a number that no dream has.
        """
        within(0, self.num_dreams - 1, restart=list(dreams))
        for start in starts:
            within(self.prompt_steps, self.prompt_steps, prompt_steps=len(start.tokens))
        if self.pixels and self.pixels.reads_past:  # what leaves the grids was seen nevertheless
            left = self.grids[: -self.prompt_steps]
            self.starts = [s.led_by([grid[n] for grid in left]) for n, s in enumerate(self.starts)]
        self.grids = [grid.clone() for grid in self.grids[-self.prompt_steps :]]
        self.actions = [r.clone() for r in self.actions[len(self.actions) + 1 - len(self.grids) :]]
        self.captions = [list(texts) for texts in self.captions[-self.prompt_steps - 1 :]]
        for dream, start in zip(dreams, starts, strict=True):
            self.starts[dream] = start
            for mine, grid in zip(self.grids, start.tokens, strict=True):
                mine[dream] = grid
            for texts in self.captions:
                texts[dream] = start.caption
            for row, action in zip(self.actions, start.actions, strict=False):
                row[dream] = action
        self.steps, self._before = [], []
        self._open(self.prompt_steps)

    def say(self, text: str) -> None:
        """Caption all dreams from the next frame on; "" takes captions away.

        Raises:
            BadInput: the model reads no text.
        """
        if self.texts is None:
            raise BadInput(
                f"ckpt={self.model.path}: reads no text; train one with model.text "
                "(docs/conditioning.md)"
            )
        self.captions[-1] = [text] * self.num_dreams
        self._open(self.decoder.frames_read)

    def _open(self, num_read: int) -> None:
        """Let the decoder read the newest grids."""
        actions = None
        if self.acted:
            rows = self.actions[len(self.actions) + 1 - num_read :]
            width = self.network.num_actions
            none = torch.zeros(self.num_dreams, 0, width, device=self.device)
            actions = torch.stack(rows, 1) if rows else none
        tokens = torch.stack(self.grids[-num_read:], 1)
        self.decoder.start(tokens, actions, captions=self._captions(num_read))
        # Guidance that decays counts the imagined frames.
        self.decoder.prompt_steps = num_read - self.num_imagined
        if self.pixels:
            self.pixels.forget()

    def _captions(self, num_read: int) -> TextContext | None:
        guidance = self.sampling.guidance
        negative = guidance.negative if guidance else ""
        if self.texts is None or not (negative or any(map(any, self.captions))):
            return None
        rows = list(zip(*self.captions[-num_read - 1 :], strict=True))
        return self.texts.embed(Captions.of(rows), self.device, negative)

    def _checked(self, actions: Tensor) -> Float[Tensor, "dream action"]:
        actions = torch.as_tensor(actions, dtype=torch.float32, device=self.device)
        needed = (self.num_dreams, self.network.num_actions)
        if actions.shape != needed:
            raise BadInput(f"actions are {list(actions.shape)}; give {list(needed)}")
        if not actions.isfinite().all():
            raise BadInput("actions hold NaN or infinity; give finite numbers")
        return actions


def _chosen(step: DreamStep, rows: Int[Tensor, " row"]) -> DreamStep:
    actions = None if step.actions is None else step.actions[rows]
    return DreamStep(step.tokens[rows], step.entropy[rows], actions)
