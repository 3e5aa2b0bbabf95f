"""Draft tokens of speculative decoding; they change its speed, never its result."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoding.base import Choose, FrameDecoder
from worldmodel.decoding.raster import Decoder


class Draft:
    """Guesses the tokens of the previous frame, cell by cell ("previous"); base of the others."""

    # Whether a token sampled after a wrong guess replaces the guess of its cell.
    learns = False

    def start(
        self,
        tokens: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
        drop_actions: Bool[Tensor, " row"] | None,
    ) -> None:
        """Start with a new prompt."""

    def open(
        self,
        past: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
    ) -> Int[Tensor, "row space"]:
        """First guesses for the frame after `past`; the last row of `actions` leads to it."""
        return past[:, -1].flatten(1).clone()

    def guess(
        self,
        frame: Int[Tensor, "row space"],
        settled: Bool[Tensor, "row space"],
        done: int,
        stop: int,
        draw: Choose,
    ) -> None:
        """Improve the guesses in cells done .. stop - 1 of `frame` that are not settled."""

    def close(self, frame: Int[Tensor, "row space"]) -> None:
        """End the frame; all its tokens are settled."""


class Jacobi(Draft):
    """Guesses the tokens that the model sampled in the last pass, from guesses.

    This is Jacobi's fixed-point iteration over all cells, with a fixed uniform number per cell
    (Song et al. 2021, arXiv 2002.03629, algorithm 1). It begins with the previous frame.
    """

    learns = True


class FrameDraft(Draft):
    """Guesses the frame that a second model, of any kind, decodes after the settled frames.

    Args:
        limit: largest number of frames in the prompt of the second model.
    """

    def __init__(self, decoder: FrameDecoder, limit: int) -> None:
        self.decoder, self.limit = decoder, limit
        self.drop_actions: Tensor | None = None

    def start(self, tokens: Tensor, actions: Tensor | None, drop_actions: Tensor | None) -> None:
        self.drop_actions = drop_actions

    def open(self, past: Tensor, actions: Tensor | None) -> Tensor:
        count = min(self.limit, past.shape[1])
        given = None if actions is None else actions[:, -count:]
        self.decoder.start(past[:, -count:], given, drop_actions=self.drop_actions)
        last = None if actions is None else actions[:, -1]
        return self.decoder.next_frame(last).flatten(1).clone()


class TokenDraft(Draft):
    """Guesses the tokens that a second GPT samples with the same uniform numbers."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def start(self, tokens: Tensor, actions: Tensor | None, drop_actions: Tensor | None) -> None:
        count = min(self.decoder.model.config.context_steps, tokens.shape[1])
        given = None if actions is None else actions[:, actions.shape[1] - count + 1 :]
        self.decoder.start(tokens[:, -count:], given, drop_actions=drop_actions)

    def open(self, past: Tensor, actions: Tensor | None) -> Tensor:
        self.decoder.begin(None if actions is None else actions[:, -1])
        self.held = 0  # number of cells in the decoder's cache; some hold guesses
        self.next_logits = self.decoder.open_frame()
        return super().open(past, actions)

    def guess(self, frame: Tensor, settled: Tensor, done: int, stop: int, draw: Choose) -> None:
        self._read(frame, done)
        for cell in range(done, stop):
            one = slice(cell, cell + 1)
            frame[:, one] = torch.where(settled[:, one], frame[:, one], draw(self.next_logits, one))
            if cell + 1 < stop:
                self._feed(frame, cell + 1)

    def close(self, frame: Int[Tensor, "row space"]) -> None:
        self._read(frame, frame.shape[1])
        self.decoder.finish(frame)

    def _read(self, frame: Tensor, done: int) -> None:
        """Bring the first `done` cells into the cache; all of them are settled.

        Only the newest settled cell can differ from its guess.
        """
        wrong = max(0, self.held - (done - 1))
        if done and wrong:
            self.decoder.cache.length -= wrong
            self.held -= wrong
        if self.held < done:
            self._feed(frame, done)

    def _feed(self, frame: Tensor, stop: int) -> None:
        cells = slice(self.held, stop)
        x = self.decoder.embed_cells(frame[:, cells], cells)
        self.next_logits = self.decoder.feed(x)[:, -1:]
        self.held = stop
