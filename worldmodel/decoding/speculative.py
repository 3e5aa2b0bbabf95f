"""Speculative decoding of a GPT: many guessed tokens per pass, exactly the sequential tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.drafts import Draft, Jacobi
from worldmodel.decoding.raster import Choose, Decoder
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.text import TextContext


class SpeculativeDecoder(Decoder):
    """Reads `num_draft` guesses in one pass and keeps those that the GPT would have drawn.

    The number that decides a token is drawn before the token (`sample`), so what the sequential
    decoder would draw after a right past is known once the logits are: a guess is kept where it
    is that token, and the first one that is not is replaced by it. Every pass thus settles at
    least one token, and futures equal those of `Decoder` with the same seed, token by token and
    not only in distribution. (Up to rounding: logits of one position and of many are summed in
    another order, so a draw within about 1e-6 of the edge between two tokens may fall either way.)
    Leviathan et al. 2023 (arXiv 2211.17192) keep the distribution alone.

    With several rows a pass settles as many tokens as its slowest row, since all rows share the
    length of the cache; faster rows keep their settled tokens as their next guesses. The host
    waits once per pass, for the number of right guesses.

    Args:
        draft: where guesses come from; Jacobi's iterations by default.
        num_draft: guesses per pass; more than a frame's rest are never read.

    Attributes:
        num_passes, num_guesses, num_accepted: counted since the start.

    Raises:
        BadInput: no guess at all, or what `Decoder` refuses.
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
        if num_draft < 1:
            raise BadInput(f"num_draft={num_draft}; give 1 guess or more")
        self.draft, self.num_draft = draft or Jacobi(), num_draft
        self.num_passes = self.num_guesses = self.num_accepted = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses read that were kept."""
        return self.num_accepted / max(self.num_guesses, 1)

    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """As `Decoder.start`; the counts begin anew."""
        super().start(tokens, actions, num_futures, drop_actions, captions)
        self.draft.start(self.tokens, self.actions, self.drop_actions)
        self.num_passes = self.num_guesses = self.num_accepted = 0

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the frame that was begun, several per pass."""
        guessed = self.draft.open(self.tokens, self.actions)
        frame = self.both(guessed[: self.num_futures])  # a guess holds for both rows of a pair
        settled = torch.zeros_like(frame, dtype=torch.bool)
        x, done, space = self.prefix, 0, frame.shape[1]
        if not x.shape[1]:  # the frame before tells the first token: there is no pass to make
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
        """Read the settled positions `x` and the guesses; return how many cells are settled now."""
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
