"""Diagonal decoding of a GPT: a frame in few passes, at a cost in cross entropy."""

import torch
from jaxtyping import Int
from torch import Tensor

from training.ranges import within
from worldmodel.decoding.base import Choose
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics.gpt.model import GPT


class DiagonalDecoder(Decoder):
    """Samples all cells of a diagonal in one pass; approximate.

    Cell (row, column) is drawn in pass `column + lag * row` (Ye et al. 2025, arXiv 2503.14070,
    within a frame). So a frame takes width + lag * (height - 1) passes. One more pass rereads it
    in raster order, so later frames are not affected. The approximation has three parts. A cell
    does not see the right ends of the rows above. It sees the left ends of the rows below, unlike
    in training. A row that starts before the row above ends reads that cell from the previous
    frame.

    Args:
        lag: passes by which a row follows the one above; 1 is fastest, the grid's width is
            raster order and exact.

    Raises:
        BadInput: a lag out of range, or what `Decoder` refuses.
    """

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        window: str = "slide",
        lag: int = 2,
    ) -> None:
        super().__init__(model, sampling, slide_steps, window)
        height, width = self.layout.height, self.layout.width
        within(1, width, lag=lag)
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        turn_of = (columns + lag * rows).flatten()
        device = next(model.parameters()).device
        count = int(turn_of.max()) + 1
        self.passes = [(turn_of == i).nonzero()[:, 0].to(device) for i in range(count)]

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the open frame, a diagonal per pass."""
        frame = self.tokens[:, -1].flatten(1).clone()
        logits = self.open_frame()
        prefix_end = self.cache.length
        first, *others = self.passes
        frame[:, first] = choose(logits, first)
        for cells in others:
            before = cells - 1
            logits = self.feed(self.embed_cells(frame[:, before], before), before)
            frame[:, cells] = choose(logits, cells)
        self.cache.length = prefix_end
        self.feed(self.embed_cells(frame, slice(0, frame.shape[1])))
        return frame
