"""Where the guesses of speculative decoding come from; none of them changes what is decoded."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.raster import Choose, Decoder


class Draft:
    """The tokens of the same cells of the frame before ("previous"); others begin with them."""

    # Whether what the model drew after a wrong guess is a better guess than the old one.
    learns = False

    def start(
        self,
        tokens: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
        drop_actions: Bool[Tensor, " row"] | None,
    ) -> None:
        """Take note of a new prompt."""

    def open(
        self,
        past: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
    ) -> Int[Tensor, "row space"]:
        """First guesses of the frame after `past`; the last row of `actions` leads to it."""
        return past[:, -1].flatten(1).clone()

    def guess(
        self,
        frame: Int[Tensor, "row space"],
        settled: Bool[Tensor, "row space"],
        done: int,
        stop: int,
        draw: Choose,
    ) -> None:
        """Better guesses, written into cells done .. stop - 1 that are not settled."""

    def close(self, frame: Int[Tensor, "row space"]) -> None:
        """Take note of the whole frame."""


class Jacobi(Draft):
    """What the model drew for a cell in its last pass, given guesses for the cells before.

    Jacobi's fixed-point iteration of all cells at once, the noise of each held fixed (Song et
    al. 2021, arXiv 2002.03629, algorithm 1). It begins with the frame before.
    """

    learns = True


class FrameDraft(Draft):
    """Frames that a model of any kind decodes, each after the real frames before it.

    Args:
        limit: frames that the model reads as a prompt.
    """

    def __init__(self, decoder: FrameDecoder, limit: int) -> None:
        self.decoder, self.limit = decoder, limit
        self.drop_actions: Tensor | None = None

    def start(
        self,
        tokens: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
        drop_actions: Bool[Tensor, " row"] | None,
    ) -> None:
        self.drop_actions = drop_actions

    def open(
        self,
        past: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
    ) -> Int[Tensor, "row space"]:
        count = min(self.limit, past.shape[1])
        given = None if actions is None else actions[:, -count:]
        self.decoder.start(past[:, -count:], given, drop_actions=self.drop_actions)
        last = None if actions is None else actions[:, -1]
        return self.decoder.next_frame(last).flatten(1).clone()


class TokenDraft(Draft):
    """What another GPT draws, token by token after what is settled, with the same numbers."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def start(
        self,
        tokens: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
        drop_actions: Bool[Tensor, " row"] | None,
    ) -> None:
        count = min(self.decoder.model.config.context_steps, tokens.shape[1])
        given = None if actions is None else actions[:, actions.shape[1] - count + 1 :]
        self.decoder.start(tokens[:, -count:], given, drop_actions=drop_actions)

    def open(
        self,
        past: Int[Tensor, "row time height width"],
        actions: Float[Tensor, "row step action"] | None,
    ) -> Int[Tensor, "row space"]:
        self.decoder.begin(None if actions is None else actions[:, -1])
        self.held = 0  # cells in the decoder's cache, some of them guesses
        self.next_logits = self.decoder.open_frame()
        return super().open(past, actions)

    def guess(
        self,
        frame: Int[Tensor, "row space"],
        settled: Bool[Tensor, "row space"],
        done: int,
        stop: int,
        draw: Choose,
    ) -> None:
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
        """Have the first `done` cells, all settled by now, in the cache.

        The newest of them may have been guessed wrong, the others were guessed right.
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
