"""Speculative decoding of a GPT: several tokens per pass, equal to sequential decoding."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from training.ranges import at_least
from worldmodel.decoding.base import Choose
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.drafts import Draft, Jacobi
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics.gpt.model import GPT


class SpeculativeDecoder(Decoder):
    """Checks `num_draft` guesses per pass and keeps those that the GPT would sample.

    The uniform number of a token is drawn in advance (`sample`). So the logits determine the token
    of the sequential decoder. A guess is kept if it is that token; the first wrong guess is
    replaced by it. Every pass settles at least one token. Futures equal those of `Decoder` with
    the same seed, token by token. (Up to rounding: sums over one and over many positions differ in
    order, so a draw within about 1e-6 of the edge between two tokens may fall either way.)
    Leviathan et al. 2023 (arXiv 2211.17192) preserve only the distribution.

    With several rows, a pass settles as many tokens as its slowest row, because all rows share the
    cache length. Faster rows keep their settled tokens as guesses. The host waits once per pass,
    for the number of correct guesses.

    Args:
        draft: source of the guesses; Jacobi iteration by default.
        num_draft: guesses per pass, at most the rest of the frame.

    Attributes:
        num_passes, num_guesses, num_accepted: counted since the start.

    Raises:
        BadInput: num_draft < 1, or as `Decoder`.
    """

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        window: str = "slide",
        draft: Draft | None = None,
        num_draft: int = 16,
    ) -> None:
        super().__init__(model, sampling, slide_steps, window)
        at_least(1, num_draft=num_draft)
        self.draft, self.num_draft = draft or Jacobi(), num_draft
        self.num_passes = self.num_guesses = self.num_accepted = 0

    @property
    def acceptance(self) -> float:
        """Share of guesses that were accepted."""
        return self.num_accepted / max(self.num_guesses, 1)

    def start(self, *prompt: Any, **options: Any) -> None:
        """As `Decoder.start`; resets the counts."""
        super().start(*prompt, **options)
        self.draft.start(self.tokens, self.actions, self.drop_actions)
        self.num_passes = self.num_guesses = self.num_accepted = 0

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the open frame, several per pass."""
        guessed = self.draft.open(self.tokens, self.actions)
        frame = self.both(guessed[: self.num_futures])  # a guess holds for both rows of a pair
        settled = torch.zeros_like(frame, dtype=torch.bool)
        x, done, space = self.prefix, 0, frame.shape[1]
        if not x.shape[1]:  # the last frame already gave the logits of the first token
            first = slice(0, 1)
            frame[:, first] = choose(self.next_logits[:, None], first)
            settled[:, first] = True
            x, done = self.embed_cells(frame[:, first], first), 1
        while done < space:
            stop = min(done + self.num_draft, space)
            self.draft.guess(frame, settled, done, stop, self.draw)
            done = self._verify(frame, settled, x, slice(done, stop), choose)
            # Where every guess up to the end was right, the last token is in the cache already.
            fed = self.cache.length - self._opened - self.layout.prefix_length
            x = self.embed_cells(frame[:, fed:done], slice(fed, done))
        if x.shape[1]:
            self.feed(x)
        self.draft.close(frame)
        return frame

    def _verify(
        self, frame: Tensor, settled: Tensor, x: Tensor, guessed: slice, choose: Choose
    ) -> int:
        """Run the settled embeddings `x` and the guesses; return the number of settled cells."""
        guesses = frame[:, guessed]
        certain, num_guesses = x.shape[1], guesses.shape[1]
        kept = self.cache.length + certain
        x = torch.cat([x, self.embed_cells(guesses, guessed)], dim=1)
        logits = self.feed(x)[:, certain - 1 :]
        cells = slice(guessed.start, min(guessed.stop + 1, frame.shape[1]))
        drawn = choose(logits[:, : cells.stop - cells.start], cells)
        right = (drawn[:, :num_guesses] == guesses).cumprod(dim=1).bool()
        num_right = int(right.all(dim=0).sum())
        # A draw is settled where all guesses before it in its row were right.
        known = torch.cat([torch.ones_like(right[:, :1]), right], dim=1)[:, : drawn.shape[1]]
        settled[:, cells] |= known
        replaced = torch.ones_like(known) if self.draft.learns else known
        frame[:, cells] = torch.where(replaced, drawn, frame[:, cells])
        self.cache.length = kept + num_right
        self.num_passes += 1
        self.num_guesses += num_guesses
        self.num_accepted += num_right
        return min(guessed.start + num_right + 1, frame.shape[1])
